"""Keeps one link to the session open: it opens links, watches that they live, renews their token, and resumes from the
last event after each. What it passes on is gapless and without repetition."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ai_chat_client.errors import ChatError, network_error
from ai_chat_client.link import NO_CODE, Link, LinkEnd, LinkHandlers, LinkRequest, OpenLink
from ai_chat_client.policy import pause_before
from ai_chat_client.state import ConnectionStatus
from ai_chat_client.tokens import GetToken, ask, claims_of
from ai_chat_client.wire import Command, Frame

READY_WITHIN = 15.0
"""Seconds; the server may take four to find a free slot."""
SILENCE = 30.0
"""The server writes at least every 25 s where the client can see it."""
PROBE = 10.0
LASTED = 10.0
"""A connection that lived so long, or brought an event, was no failure."""
RENEW_BEFORE = 60.0
BLOCKED_AFTER = 2
"""Attempts of the first transport that never got through."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    api: str
    get_token: GetToken
    transports: Sequence[OpenLink]
    """The ways to connect, the best first. The next one is tried where the first does not get through."""
    frame: Callable[[Frame], None]
    status: Callable[[ConnectionStatus, ChatError | None], None]


class _EndedError(Exception):
    """Raised in a link's handler: this side ends the link."""

    def __init__(self, end: LinkEnd) -> None:
        self.end = end


class Connection:
    def __init__(self, options: ConnectionOptions) -> None:
        self.cursor: str | None = None
        self._options = options
        self._link: Link | None = None
        self._watchdog: _Watchdog | None = None
        self._is_ready = False
        self._failures = 0
        self._blocked = 0
        self._transport = 0
        self._is_expired = False

    async def run(self) -> None:
        """Stay connected until cancelled, or until the server refuses."""
        while True:
            self._options.status("connecting", None)
            end = await self._connect()
            self._is_expired = end.code == 4001
            if end.error and end.error.code == "invalid_cursor":
                self.cursor = None  # the next connection begins without one
            pause = pause_before(end, self._failures, random.random())  # noqa: S311 - jitter, not a secret
            error = end.error or _refusal(end.code)
            self._options.status("closed" if pause is None else "offline", error)
            if pause is None:
                return
            await asyncio.sleep(pause)

    def send(self, command: Command) -> None:
        """Without a connection it does nothing."""
        if self._is_ready and self._link:
            self._link.send(command)

    async def _connect(self) -> LinkEnd:
        transports = self._options.transports
        self._transport = 1 % len(transports) if self._blocked >= BLOCKED_AFTER else 0
        try:
            token = await ask(self._options.get_token, expired=self._is_expired)
        except ChatError as error:
            self._failures += 1
            return LinkEnd(4500 if error.code == "not_signed_in" else NO_CODE, error)

        began = asyncio.get_running_loop().time()
        end = await self._until_end(transports[self._transport], token)
        got_through = self._is_ready or end.code != NO_CODE
        has_lasted = self._is_ready and asyncio.get_running_loop().time() - began > LASTED
        self._failures = 0 if has_lasted else self._failures + 1
        # A transport that fails before it gets through may be blocked in this network: try the other one, but come back
        # to the first whenever that one has ended.
        if self._transport:
            self._blocked = BLOCKED_AFTER - 1 if got_through else 0
        else:
            self._blocked = 0 if got_through else self._blocked + 1
        self._is_ready = False
        return end

    async def _until_end(self, open_link: OpenLink, token: str) -> LinkEnd:
        request = LinkRequest(self._options.api, token, self.cursor)
        link = self._link = open_link(request, LinkHandlers(frame=self._receive, alive=self._alive))
        renewal = asyncio.create_task(self._keep_signed_in(link, token))
        try:
            async with asyncio.timeout(READY_WITHIN) as deadline:
                self._watchdog = _Watchdog(link, deadline)
                return await link.run()
        except TimeoutError:
            return LinkEnd(NO_CODE)
        except _EndedError as ended:
            return ended.end
        finally:
            self._link = None
            if self._watchdog:
                self._watchdog.stop()
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)

    def _receive(self, frame: Frame) -> None:
        self._alive()
        if frame["type"] == "ready":
            if not frame["resumed"]:
                self.cursor = frame["cursor"]
            self._is_ready = True
            self._alive()
            self._options.status("online", None)
        else:
            epoch, seq = frame.get("epoch"), frame.get("seq")
            if isinstance(epoch, str) and isinstance(seq, int):
                first = frame.get("first_seq")
                if not self._is_next(epoch, seq, first if isinstance(first, int) else seq):
                    return
        self._options.frame(frame)

    def _is_next(self, epoch: str, seq: int, first: int) -> bool:
        """Whether the event follows the last one. A repeated one is ignored; a gap is closed by resuming."""
        last_epoch, _, last = (self.cursor or ":0").rpartition(":")
        if epoch == last_epoch and seq <= int(last):
            return False
        if epoch != last_epoch or first != int(last) + 1:
            raise _EndedError(LinkEnd(4002))
        self.cursor = f"{epoch}:{seq}"
        self._failures = 0
        return True

    def _alive(self) -> None:
        if self._is_ready and self._watchdog:
            self._watchdog.alive()

    async def _keep_signed_in(self, link: Link, token: str) -> None:
        """Send a fresh token before the old one expires."""
        while (expires_at := claims_of(token).expires_at) is not None:
            remaining = expires_at - time.time()
            await asyncio.sleep(remaining - RENEW_BEFORE if remaining > RENEW_BEFORE else max(remaining / 2, 5.0))
            with suppress(ChatError):  # the next try is soon
                fresh = await ask(self._options.get_token, expired=False)
                if fresh != token:
                    token = fresh
                    link.renew(fresh)


class _Watchdog:
    """Ends a silent link: probes it first, then lets its deadline pass."""

    def __init__(self, link: Link, deadline: asyncio.Timeout) -> None:
        self._link, self._deadline = link, deadline
        self._loop = asyncio.get_running_loop()
        self._probe: asyncio.TimerHandle | None = None

    def alive(self) -> None:
        self.stop()
        if self._deadline.expired():
            return
        now = self._loop.time()
        self._probe = self._loop.call_at(now + SILENCE, self._link.probe)
        self._deadline.reschedule(now + SILENCE + PROBE)

    def stop(self) -> None:
        if self._probe:
            self._probe.cancel()


REFUSALS = {
    4500: ChatError("unauthorized", "Sign in again."),
    4501: ChatError("invalid_request", "The server refused this connection."),
    4502: ChatError("unauthorized", "You were signed out: sign in again."),
    4503: ChatError("account_blocked", "This account is closed."),
}


def _refusal(code: int) -> ChatError:
    return REFUSALS.get(code) or network_error()
