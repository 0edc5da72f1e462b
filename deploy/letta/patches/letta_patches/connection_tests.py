"""A database connection that was in use within the last second is not tested before its next use.

Letta tests each connection with three round trips whenever it takes it from its pool, some 34 times a turn. Connections
that were idle for longer are tested as before. One that broke within that second fails a request, like one that breaks
during a query.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from letta_patches.known import NotApplicableError

FRESH_SECONDS: Final = 1.0


def apply() -> None:
    """Skip tests of connections that are fresh. Raises NotApplicableError."""
    from letta.server.db import engine
    from letta.settings import settings
    from sqlalchemy import event

    if settings.disable_sqlalchemy_pooling or not settings.pool_pre_ping:
        raise NotApplicableError("connections are not pooled, or not tested")
    pool, dialect = engine.sync_engine.pool, engine.sync_engine.dialect
    tests = FreshConnections(dialect.do_ping)
    event.listen(pool, "checkin", lambda connection, _record: tests.used(connection))
    event.listen(pool, "close", lambda connection, _record: tests.closed(connection))
    dialect.do_ping = tests.ping


class FreshConnections:
    """Remembers when each connection was returned to the pool. `ping` tests one, and returns whether it works."""

    def __init__(self, ping: Callable[[Any], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._ping = ping
        self._clock = clock
        self._used_at: dict[int, float] = {}

    def used(self, connection: object | None) -> None:
        """Note a return to the pool. None: the connection broke."""
        if connection is not None:
            self._used_at[id(connection)] = self._clock()

    def closed(self, connection: object) -> None:
        """Forget the connection."""
        self._used_at.pop(id(connection), None)

    def ping(self, connection: object) -> bool:
        """Test the connection, unless it is fresh. Raises what the test raises."""
        used_at = self._used_at.get(id(connection))
        if used_at is not None and self._clock() - used_at < FRESH_SECONDS:
            return True
        return self._ping(connection)
