"""Tests with a `World` are run twice: with logs of one process's own, and with logs that are replicated."""

from collections.abc import Iterator

import pytest

from tests.unit.sessions.world import SHARED


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module without a World, or with a `placement` of its own, is run once."""
    names = vars(metafunc.module)
    if "placement" in metafunc.fixturenames and "placement" not in names and ("World" in names or "Sessions" in names):
        metafunc.parametrize("placement", [False, True], ids=["local", "shared"], indirect=True)


@pytest.fixture(autouse=True)
def placement(request: pytest.FixtureRequest) -> Iterator[None]:
    token = SHARED.set(getattr(request, "param", False))
    yield
    SHARED.reset(token)
