"""A user's device: it keeps the protocol's rules for clients and holds the server to its side of them."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from server.protocol.codes import CloseCode
from server.protocol.cursors import EventCursor
from server.sessions.events.codec import TERMINAL
from server.sessions.events.log import Subscription
from server.sessions.events.snapshot import Snapshot
from server.sessions.hub import Attachment, SessionHub

Json = dict[str, Any]


class Device:
    """Reads every event as it comes, unless it is `dozing`; then it catches up at the next `read`.

    Every frame is checked: numbers follow one another without a gap, and no attempt ends twice.
    """

    def __init__(self, *, dozing: bool = False) -> None:
        self.dozing = dozing
        self.events: list[Json] = []
        self.closed: CloseCode | None = None
        self.attachment: Attachment | None = None
        self.ends: dict[tuple[str, int], Json] = {}
        self._texts: dict[tuple[str, int], str] = {}
        self._subscription: Subscription | None = None
        self._news = asyncio.Event()

    async def join(self, hub: SessionHub, user_id: str, after: EventCursor | None = None) -> Attachment:
        """Connect, or connect again. What was shown before is kept or dropped as the protocol says."""
        self.leave()
        self.closed = None
        self.attachment = attachment = await hub.attach(user_id, self, after)
        self._subscription = attachment.subscription
        if not attachment.resumed:
            self._take(attachment.snapshot)
        if not self.dozing:
            self.read()
        return attachment

    def _begin_anew(self) -> None:
        """The log began anew: the server shows where it stands, as in the greeting of a new connection."""
        assert self._subscription is not None
        assert self.attachment is not None
        self._subscription.restart()
        self._take(self.attachment.session.snapshot())

    def _take(self, snapshot: Snapshot) -> None:
        self._texts = {key: text for key, text in self._texts.items() if key in self.ends}
        if (turn := snapshot.running) is not None:
            self._texts[turn.turn_id, turn.attempt] = snapshot.text

    def leave(self) -> None:
        """Drop the connection."""
        if self.attachment is not None:
            self.attachment.session.detach(self, self.attachment.subscription)
        self.attachment = self._subscription = None

    # What the session calls

    def deliver(self) -> None:
        if not self.dozing:
            self.read()

    def close(self, code: CloseCode) -> None:
        self.closed = self.closed or code
        self.leave()
        self._news.set()

    # What a test sees

    @property
    def cursor(self) -> EventCursor:
        assert self._subscription is not None
        return self._subscription.cursor

    @property
    def types(self) -> list[str]:
        """The kinds of events seen, with runs of deltas shown once."""
        kinds = [event["type"] for event in self.events]
        return [kind for index, kind in enumerate(kinds) if index == 0 or kind != kinds[index - 1]]

    def text(self, turn_id: str, attempt: int = 1) -> str:
        """The reply as the screen shows it: the terminal message once there is one, else what was streamed."""
        if (end := self.ends.get((turn_id, attempt))) is not None:
            message = end["turn"]["message"]
            return str(message["content"]) if message else ""
        return self.streamed(turn_id, attempt)

    def streamed(self, turn_id: str, attempt: int = 1) -> str:
        return self._texts.get((turn_id, attempt), "")

    async def until(self, seen: Callable[[], object]) -> None:
        """Read on until `seen` is true. Raises TimeoutError after an hour."""
        async with asyncio.timeout(3600):
            while not seen():
                self._news.clear()
                await self._news.wait()

    async def until_end(self, turn_id: str, attempt: int = 1) -> Json:
        """The terminal event of an attempt."""
        await self.until(lambda: (turn_id, attempt) in self.ends)
        return self.ends[turn_id, attempt]

    async def until_text(self, turn_id: str, text: str, attempt: int = 1) -> None:
        """Wait until at least this much was streamed."""
        await self.until(lambda: self.streamed(turn_id, attempt).startswith(text))

    def read(self) -> None:
        """Take everything that waits."""
        assert self._subscription is not None
        if self._subscription.is_lost:
            self._begin_anew()
        before = self._subscription.seq
        for frame in self._subscription.take():
            event = orjson.loads(frame.data)
            assert event.get("first_seq", event["seq"]) == before + 1, "a gap in the events"
            before = event["seq"]
            self._see(event)
        self._news.set()

    def _see(self, event: Json) -> None:
        self.events.append(event)
        key = str(event.get("turn_id")), int(event.get("attempt", 0))
        if event["type"] == "message.delta":
            assert key not in self.ends, "text after the end"
            self._texts[key] = self._texts.get(key, "") + event["text"]
        elif event["type"] in TERMINAL:
            assert key not in self.ends, "a second end of one attempt"
            self.ends[key] = event
