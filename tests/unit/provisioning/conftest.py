"""Each test provisions in a world of its own, whose log is kept in memory: killing processes writes long tracebacks."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.unit.provisioning.world import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """The log events of the test."""
    with capture_logs() as events:
        yield events
