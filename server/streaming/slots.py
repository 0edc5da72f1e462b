"""Connection slots of a user: when all are in use, dead connections are evicted for a new device.

When a network fails, all its devices reconnect at once, while their old connections still seem open. A WebSocket is
pinged, and closed without a pong. An event stream cannot be pinged: it is closed if TCP acknowledges nothing; behind a
proxy, which acknowledges everything, the oldest stream is evicted. An evicted client that is alive resumes from its
cursor and loses no event. Where all old connections were dead, a new device attached after 3.5 s; without this after
35 s, at its eighth attempt.
"""

import asyncio
from collections import Counter
from typing import Final

from server.protocol.codes import TOO_MANY_CONNECTIONS, ErrorCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.sessions.hub import Attachment, RefusedConnectionError, SessionHub
from server.sessions.session import Session
from server.streaming.subscriber import Subscriber

_RETRY_AFTER_SECONDS: Final = 5.0
_CLOSE_MARGIN_SECONDS: Final = 0.5
"""What a dead connection needs to end after its probe has failed."""


class Slots:
    """Attaches connections to sessions, at most `connections_per_user` per user."""

    def __init__(self, hub: SessionHub, limits: Limits) -> None:
        self._hub = hub
        self._limits = limits
        self._waiting: Counter[str] = Counter()

    async def attach(self, user_id: str, connection: Subscriber, after: EventCursor | None) -> Attachment:
        """Attach to the session. If no slot is free, wait some seconds for one. At most `connections_per_user`
        connections of a user wait; further ones are refused at once.

        Raises RefusedConnectionError, PlatformError(supabase_unavailable).
        """
        try:
            return await self._hub.attach(user_id, connection, after)
        except RefusedConnectionError as refused:
            if refused.code is not TOO_MANY_CONNECTIONS or self._waiting[user_id] >= self._limits.connections_per_user:
                raise
        self._waiting[user_id] += 1
        try:
            return await self._attach_later(user_id, connection, after)
        finally:
            self._waiting[user_id] -= 1
            if not self._waiting[user_id]:
                del self._waiting[user_id]

    async def _attach_later(self, user_id: str, connection: Subscriber, after: EventCursor | None) -> Attachment:
        for other in _subscribers(await self._hub.session(user_id)):
            other.probe()
        await asyncio.sleep(self._limits.probe_seconds + _CLOSE_MARGIN_SECONDS)
        try:
            return await self._hub.attach(user_id, connection, after)
        except RefusedConnectionError as refused:
            if refused.code is not TOO_MANY_CONNECTIONS or not _evict_oldest(await self._hub.session(user_id)):
                raise
        return await self._hub.attach(user_id, connection, after)


def too_many_connections() -> PlatformError:
    """The error of a client for which no slot was free."""
    message = "Too many connections are open for this user."
    return PlatformError(ErrorCode.RATE_LIMITED, message, retry_after=_RETRY_AFTER_SECONDS)


def _subscribers(session: Session) -> list[Subscriber]:
    """The session's connections, the oldest first."""
    return [connection for connection in session.connections if isinstance(connection, Subscriber)]


def _evict_oldest(session: Session) -> bool:
    """Free a slot at once. Returns True if a connection was evicted."""
    now = asyncio.get_running_loop().time()
    oldest = next((other for other in _subscribers(session) if other.is_evictable(now)), None)
    if oldest is None or oldest.subscription is None:
        return False
    oldest.close(TOO_MANY_CONNECTIONS)
    session.detach(oldest, oldest.subscription)
    return True
