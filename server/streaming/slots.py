"""Joining a session whose slots may all be taken: connections of clients that are gone give way to a new device.

When a network is lost, all its devices come back at once, while their old connections seem to be open still. Sockets
answer a ping or are closed. Event streams answer nothing: one whose line takes nothing is closed; behind a proxy, which
takes everything, the oldest gives way. A client that is there resumes from its cursor and loses nothing. Where all
connections were those of vanished clients, a new device came in after 3.5 s; without this after 35, at its eighth try.
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

_COME_BACK_SECONDS: Final = 5.0
_MOMENT: Final = 0.5
"""Seconds that a connection needs to end once its client is known to be gone."""


class Slots:
    """Attaches connections to sessions, of at most `connections_per_user` of one user."""

    def __init__(self, hub: SessionHub, limits: Limits) -> None:
        self._hub = hub
        self._limits = limits
        self._waiting: Counter[str] = Counter()

    async def attach(self, user_id: str, connection: Subscriber, after: EventCursor | None) -> Attachment:
        """Join the session. Where no slot is free, wait some seconds for one; no more of a user wait than may join.

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
            other.prove_yourself()
        await asyncio.sleep(self._limits.proof_seconds + _MOMENT)
        try:
            return await self._hub.attach(user_id, connection, after)
        except RefusedConnectionError as refused:
            if refused.code is not TOO_MANY_CONNECTIONS or not _send_oldest_away(await self._hub.session(user_id)):
                raise
        return await self._hub.attach(user_id, connection, after)


def too_many_connections() -> PlatformError:
    """The refusal of a client that found no slot."""
    message = "Too many connections are open for this user."
    return PlatformError(ErrorCode.RATE_LIMITED, message, retry_after=_COME_BACK_SECONDS)


def _subscribers(session: Session) -> list[Subscriber]:
    """The session's connections, the oldest first."""
    return [connection for connection in session.connections if isinstance(connection, Subscriber)]


def _send_oldest_away(session: Session) -> bool:
    """Free a slot at once. Returns True if a connection gave way."""
    now = asyncio.get_running_loop().time()
    oldest = next((other for other in _subscribers(session) if other.can_give_way(now)), None)
    if oldest is None or oldest.subscription is None:
        return False
    oldest.close(TOO_MANY_CONNECTIONS)
    session.detach(oldest, oldest.subscription)
    return True
