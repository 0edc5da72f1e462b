"""Gives each test a world of its own and captures its log, since killed processes log long tracebacks."""

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
