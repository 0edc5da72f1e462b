"""The writing side of a connection: it waits for events in the log, or for `close`."""

import asyncio
from datetime import datetime
from typing import ClassVar, Literal

from server.ports import Credential, OpenConnection, Principal
from server.protocol.codes import SIGNED_OUT, SLOW_CONSUMER, TOKEN_EXPIRED, CloseCode
from server.protocol.frames import ready_frame
from server.protocol.limits import Limits
from server.protocol.shapes import Turn
from server.sessions.events.log import Subscription
from server.sessions.events.snapshot import Snapshot
from server.sessions.hub import Attachment


class Subscriber:
    """The session's view of one connection. `closing` is set once, by the first call of `close`. `credential` is what
    the connection was opened with; it is closed when that ends. `opened` describes it to its user."""

    __slots__ = ("_waiter", "closing", "credential", "opened_at", "subscription")

    kind: ClassVar[Literal["websocket", "events"]]

    def __init__(self) -> None:
        self.closing: CloseCode | None = None
        self.credential: Credential | None = None
        self.opened_at: datetime | None = None
        self.subscription: Subscription | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def opened(self) -> OpenConnection | None:
        if self.opened_at is None or self.credential is None:
            return None
        return OpenConnection(self.kind, self.opened_at, self.credential.session_id, self.credential.key_id)

    def wake(self) -> None:
        """Wake the writer. Called for every event, also while the writer is sending or blocked on its socket."""
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            if self.subscription is not None and self.subscription.is_slow:
                self.close(SLOW_CONSUMER)
        elif not waiter.done():
            waiter.set_result(None)

    def close(self, code: CloseCode) -> None:
        if self.closing is None:
            self.closing = code
            self.wake()

    def probe(self) -> None:
        """Test whether the client is alive; if it is not, close the connection `probe_seconds` from now."""

    def is_evictable(self, now: float) -> bool:
        """Whether this connection may be closed for a new one without a sign that its client is gone."""
        return False

    def next_wake(self) -> "asyncio.Future[None]":
        """A future that the next `wake` completes; an earlier `wake` does not, so look for work before awaiting it."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter


def expiry_code(principal: Principal) -> CloseCode:
    """Why a connection is closed when its credential expires: a token can be refreshed, an API key cannot."""
    return TOKEN_EXPIRED if principal.key_id is None else SIGNED_OUT


def ready_on_attach(attachment: Attachment, user_id: str, limits: Limits, only: Turn | None = None) -> bytes:
    """The `ready` frame of a connection that has just attached to its session; of `only` this turn, if it is given."""
    snapshot = attachment.snapshot if only is None else attachment.snapshot.of(only)
    return _ready(attachment.subscription, snapshot, attachment.resumed, user_id, limits)


def ready_on_new_epoch(attachment: Attachment, user_id: str, limits: Limits, only: Turn | None = None) -> bytes:
    """The `ready` frame of a connection whose log began a new epoch; the subscription restarts at its cursor."""
    attachment.subscription.restart()
    snapshot = attachment.session.snapshot()
    return _ready(attachment.subscription, snapshot if only is None else snapshot.of(only), False, user_id, limits)


def _ready(subscription: Subscription, snapshot: Snapshot, resumed: bool, user_id: str, limits: Limits) -> bytes:
    return ready_frame(
        cursor=subscription.cursor,
        resumed=resumed,
        user_id=user_id,
        limits=limits,
        turn=snapshot.turn(),
        queued=list(snapshot.queued),
    )
