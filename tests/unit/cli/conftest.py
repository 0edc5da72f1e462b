"""The commands of the local stack work on a data directory, as its own tests do."""

from tests.unit.stack.conftest import layout

__all__ = ["layout"]
