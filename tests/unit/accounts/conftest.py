"""Each test has a world of its own, with the services of provisioning."""

from tests.unit.provisioning.conftest import logged, world

__all__ = ["logged", "world"]
