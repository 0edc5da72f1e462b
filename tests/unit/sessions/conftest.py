"""Every test of sessions is played twice: with logs of one process's own, and with logs that processes share."""

from collections.abc import Iterator

import pytest

from tests.unit.sessions.world import SHARED


@pytest.fixture(params=[False, True], ids=["local", "shared"], autouse=True)
def placement(request: pytest.FixtureRequest) -> Iterator[None]:
    token = SHARED.set(request.param)
    yield
    SHARED.reset(token)
