"""Each test talks to a server of its own, as the tests of the API do."""

from tests.unit.api.conftest import world

__all__ = ["world"]
