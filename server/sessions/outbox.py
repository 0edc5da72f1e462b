"""What the sessions of this instance have to say to the others: gathered for a moment, sent in one go, then delivered.

One task writes for all sessions, so that nothing overtakes anything and a chunk costs no task of its own.
"""

import asyncio
from contextlib import suppress
from typing import Protocol

import structlog

from server.ports import EventRelay, Outcome, RelayAwayError
from server.sessions.drafts import Sending

log = structlog.get_logger(__name__)

EMPTY_SECONDS = 5.0
"""How long a session that ends waits until others have what it had to say. The rows tell them all the same."""
GATHER_SECONDS = 0.005
"""The least time between two sends. The first event after a silence goes at once."""


class Sender(Protocol):
    """A log whose events are to be sent; `RelayedLog` is one."""

    @property
    def is_behind(self) -> bool: ...

    def sending(self) -> Sending | None: ...

    async def settle(self, outcome: Outcome) -> None: ...

    def take_back(self) -> None: ...

    async def correct_next(self) -> None: ...

    def detach(self) -> None: ...

    async def attach_again(self) -> None: ...


class Outbox:
    """Run `run` for as long as events are to be sent."""

    def __init__(self, relay: EventRelay) -> None:
        self._relay = relay
        self._logs: dict[Sender, None] = {}
        self._full: dict[Sender, None] = {}
        self._news = asyncio.Event()
        self._relay_changed = False
        self._sent: asyncio.Future[None] | None = None

    def enter(self, one: Sender) -> None:
        """This log may have something to say from now on."""
        self._logs[one] = None

    def leave(self, one: Sender) -> None:
        """It never will again."""
        self._logs.pop(one, None)
        self._full.pop(one, None)

    def add(self, one: Sender) -> None:
        """This log has something to say."""
        if one in self._logs:
            self._full[one] = None
            self._news.set()

    def look(self) -> None:
        """The relay went away or came back."""
        self._relay_changed = True
        self._news.set()

    async def emptied(self, one: Sender) -> None:
        """Return when nothing of this log waits any more, or it has waited too long to matter."""
        with suppress(TimeoutError):
            async with asyncio.timeout(EMPTY_SECONDS):
                while one.is_behind and one in self._logs:
                    self.add(one)
                    if self._sent is None:
                        self._sent = asyncio.get_running_loop().create_future()
                    await asyncio.shield(self._sent)

    async def run(self) -> None:
        clock = asyncio.get_running_loop().time
        sent_at = -GATHER_SECONDS
        while True:
            await self._news.wait()
            if (rest := sent_at + GATHER_SECONDS - clock()) > 0:
                await asyncio.sleep(rest)
            self._news.clear()
            sent_at = clock()
            try:
                if not self._relay.is_away:
                    await self._send()
            except RelayAwayError:
                self._relay.report_away()
            except Exception:  # the sessions must not fall silent for good: they go on from memory
                log.exception("outbox.failed")
                self._relay.report_away()
            if self._relay.is_away:
                self._relay_changed = False
                for one in tuple(self._logs):
                    one.detach()
                self._full.clear()
            sent, self._sent = self._sent, None
            if sent is not None:
                sent.set_result(None)

    async def _send(self) -> None:
        """Raises RelayAwayError; nothing is lost then, every log has its own events again."""
        if self._relay_changed:
            self._relay_changed = False
            for one in tuple(self._logs):
                await one.attach_again()
        full, self._full = self._full, {}
        sendings = [(one, sending) for one in full if (sending := one.sending()) is not None]
        if sendings:
            try:
                outcomes = await self._relay.append([sending.batch for _, sending in sendings])
            except BaseException:
                for one, _ in sendings:
                    one.take_back()
                raise
            for (one, _), outcome in zip(sendings, outcomes, strict=True):
                await one.settle(outcome)
        for one in full:
            await one.correct_next()
