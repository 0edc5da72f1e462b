"""Each test uses its own server, as the tests of the API do."""

from tests.unit.api.conftest import world

__all__ = ["world"]
