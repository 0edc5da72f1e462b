"""The writing side of a connection. A task, the writer, sends what there is to send, in order.

But a small delta that finds nothing being written and the socket empty is sent at once: the task would cost as much as
the sending.
"""

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, ClassVar, Final, Literal

from server.aio import run_now
from server.ports import Credential, OpenConnection, Principal
from server.protocol.codes import SIGNED_OUT, SLOW_CONSUMER, TOKEN_EXPIRED, CloseCode
from server.protocol.frames import ready_frame
from server.protocol.limits import Limits
from server.protocol.shapes import Turn
from server.sessions.events.codec import Entry
from server.sessions.events.log import Subscription
from server.sessions.events.snapshot import Snapshot
from server.sessions.hub import Attachment
from server.sessions.session import Session
from server.streaming.tcp import UNSENT_BYTES

_AT_ONCE_BYTES: Final = UNSENT_BYTES // 2
"""The largest delta that is sent at once: its frame fits into the transport's empty buffer, so that sending
it never waits."""


class Subscriber:
    """The session's view of one connection. `closing` is set once, by the first call of `close`. `credential` is what
    the connection was opened with; it is closed when that ends. `opened` describes it to its user."""

    __slots__ = ("closing", "credential", "opened_at", "subscription", "transport")

    kind: ClassVar[Literal["websocket", "events"]]
    transport: asyncio.Transport | None

    def __init__(self) -> None:
        self.closing: CloseCode | None = None
        self.credential: Credential | None = None
        self.opened_at: datetime | None = None
        self.subscription: Subscription | None = None
        self.transport = None

    @property
    def opened(self) -> OpenConnection | None:
        if self.opened_at is None or self.credential is None:
            return None
        return OpenConnection(self.kind, self.opened_at, self.credential.session_id, self.credential.key_id)

    def send(self, entry: Entry) -> Coroutine[Any, Any, None]:
        """Write one event. It is written before this waits, which it does only while the transport's buffer is full."""
        raise NotImplementedError

    @property
    def is_writing(self) -> bool:
        """Whether the writer is sending, or blocked on its socket. It looks for more to send when it has sent that."""
        raise NotImplementedError

    def wake(self) -> None:
        """Have the writer send what there is to send."""
        raise NotImplementedError

    def deliver(self) -> None:
        """Send a delta at once, or have the writer send what is new. Called for every event."""
        if self.is_writing:
            if self.subscription is not None and self.subscription.is_slow:
                self.close(SLOW_CONSUMER)
        elif self.closing is None and not self._sends_delta():
            self.wake()

    def _sends_delta(self) -> bool:
        transport, subscription = self.transport, self.subscription
        if subscription is None or transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return False
        delta = subscription.take_delta(_AT_ONCE_BYTES)
        if delta is None:
            return False
        try:
            run_now(self.send(delta))
        except ConnectionError:
            return False  # the reader learns of it too, and ends the connection
        return True

    def close(self, code: CloseCode) -> None:
        if self.closing is None:
            self.closing = code
            self.wake()

    def probe(self) -> None:
        """Test whether the client is alive; if it is not, close the connection `probe_seconds` from now."""

    def is_evictable(self, now: float) -> bool:
        """Whether this connection may be closed for a new one without a sign that its client is gone."""
        return False


def expiry_code(principal: Principal) -> CloseCode:
    """Why a connection is closed when its credential expires: a token can be refreshed, an API key cannot."""
    return TOKEN_EXPIRED if principal.key_id is None else SIGNED_OUT


def ready_on_attach(attachment: Attachment, user_id: str, limits: Limits, only: Turn | None = None) -> bytes:
    """The `ready` frame of a connection that has just attached to its session; of `only` this turn, if it is given."""
    snapshot = attachment.snapshot if only is None else attachment.snapshot.of(only)
    return _ready(attachment.subscription, snapshot, attachment.resumed, user_id, limits)


def ready_on_new_epoch(session: Session, subscription: Subscription, limits: Limits, only: Turn | None = None) -> bytes:
    """The `ready` frame of a connection whose log began a new epoch; the subscription restarts at its cursor."""
    subscription.restart()
    snapshot = session.snapshot()
    return _ready(subscription, snapshot if only is None else snapshot.of(only), False, session.user_id, limits)


def _ready(subscription: Subscription, snapshot: Snapshot, resumed: bool, user_id: str, limits: Limits) -> bytes:
    return ready_frame(
        cursor=subscription.cursor,
        resumed=resumed,
        user_id=user_id,
        limits=limits,
        turn=snapshot.turn(),
        queued=list(snapshot.queued),
    )
