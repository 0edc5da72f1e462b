"""What the writing side of a connection waits on: more events in the log, or an order to close."""

import asyncio

from server.protocol.codes import SLOW_CONSUMER, CloseCode
from server.protocol.frames import ready_frame
from server.protocol.limits import Limits
from server.protocol.shapes import Turn
from server.sessions.events.log import Subscription
from server.sessions.events.snapshot import Snapshot
from server.sessions.hub import Attachment


class Subscriber:
    """The session's view of one connection. `closing` is set once, by whoever ends the connection first."""

    __slots__ = ("_waiter", "closing", "subscription")

    def __init__(self) -> None:
        self.closing: CloseCode | None = None
        self.subscription: Subscription | None = None
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """There is more to send. Called for every event, also while the writer is at work or stuck on its socket."""
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

    def prove_yourself(self) -> None:
        """Find out whether the client is still there: one that is not is gone `proof_seconds` from now."""

    def can_give_way(self, now: float) -> bool:
        """Whether this connection may be sent away for a new one, though nothing shows that its client is gone."""
        return False

    def woken(self) -> "asyncio.Future[None]":
        """Done at the next `wake`. Await it only after looking for work: what came before it wakes nobody."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter


def greeting(attachment: Attachment, user_id: str, limits: Limits, only: Turn | None = None) -> bytes:
    """The `ready` frame of a connection that has just joined its session; of `only` this turn, if it is given."""
    snapshot = attachment.snapshot if only is None else attachment.snapshot.of(only)
    return _ready(attachment.subscription, snapshot, attachment.resumed, user_id, limits)


def new_beginning(attachment: Attachment, user_id: str, limits: Limits, only: Turn | None = None) -> bytes:
    """The `ready` frame of a connection whose log began anew. It reads on from where this frame tells it stands."""
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
