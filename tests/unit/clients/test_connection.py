"""One link at a time: when another is opened, with which cursor and by which transport, and when a silent one ends."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ai_chat_client.connection import Connection, ConnectionOptions
from ai_chat_client.errors import ChatError
from ai_chat_client.link import LinkEnd, LinkHandlers, LinkRequest
from ai_chat_client.tokens import constant
from clients.conformance.world import World
from tests.virtual_time import virtual_time

Script = Callable[["Lab", LinkHandlers], Awaitable[LinkEnd]]
FOREVER = 10_000.0


@dataclass
class ScriptedLink:
    lab: "Lab"
    script: Script
    handlers: LinkHandlers

    async def run(self) -> LinkEnd:
        return await self.script(self.lab, self.handlers)

    def send(self, command: Any) -> None:
        self.lab.sent.append(command["type"])

    def renew(self, token: str) -> None:
        self.lab.sent.append(f"renew {token}")

    def probe(self) -> None:
        self.lab.sent.append("probe")


@dataclass
class Lab:
    """A connection whose links follow scripts, one after another; after the last it is cancelled."""

    world: World = field(default_factory=World)
    opened: list[tuple[str, str | None, float]] = field(default_factory=list)
    """Transport, cursor, and when."""
    sent: list[str] = field(default_factory=list)
    frames: list[str] = field(default_factory=list)
    statuses: list[tuple[str, str | None]] = field(default_factory=list)

    async def play(self, *scripts: Script, transports: int = 1) -> Connection:
        waiting = list(scripts)
        over = asyncio.Event()

        def transport(name: str) -> Callable[[LinkRequest, LinkHandlers], ScriptedLink]:
            def open_link(request: LinkRequest, handlers: LinkHandlers) -> ScriptedLink:
                if not waiting:
                    over.set()
                    return ScriptedLink(self, silent, handlers)
                self.opened.append((name, request.cursor, asyncio.get_running_loop().time() - began))
                return ScriptedLink(self, waiting.pop(0), handlers)

            return open_link

        began = asyncio.get_running_loop().time()
        connection = Connection(
            ConnectionOptions(
                "http://chat/api/v1",
                constant("a token"),
                [transport(name) for name in ("socket", "stream")[:transports]],
                lambda frame: self.frames.append(frame["type"]),
                lambda status, error: self.statuses.append((status, error.code if error else None)),
            )
        )
        running = asyncio.create_task(connection.run())
        ended = asyncio.create_task(over.wait())
        await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
        for task in (running, ended):
            task.cancel()
        await asyncio.gather(running, ended, return_exceptions=True)
        return connection


async def silent(_: Lab, __: LinkHandlers) -> LinkEnd:
    await asyncio.sleep(FOREVER)
    raise AssertionError


def closes(code: int, error: ChatError | None = None, *, is_ready: bool = True) -> Script:
    async def script(lab: Lab, handlers: LinkHandlers) -> LinkEnd:
        if is_ready:
            handlers.frame(lab.world.ready(resumed=False))  # type: ignore[arg-type]
        return LinkEnd(code, error)

    return script


@virtual_time
async def test_the_next_link_resumes_after_the_last_event() -> None:
    async def one_event(lab: Lab, handlers: LinkHandlers) -> LinkEnd:
        handlers.frame(lab.world.ready(resumed=False))  # type: ignore[arg-type]
        handlers.frame(lab.world.started(lab.world.accept("Hello")))  # type: ignore[arg-type]
        return LinkEnd(1012)

    lab = Lab()
    await lab.play(one_event, closes(1006))
    assert [cursor for _, cursor, _ in lab.opened] == [None, "epoch1:1"]


@virtual_time
async def test_a_gap_ends_the_link_and_is_closed_by_resuming() -> None:
    async def gap(lab: Lab, handlers: LinkHandlers) -> LinkEnd:
        handlers.frame(lab.world.ready(resumed=False))  # type: ignore[arg-type]
        lab.world.seq += 1
        handlers.frame(lab.world.started(lab.world.accept("Hello")))  # type: ignore[arg-type]
        raise AssertionError("the link goes on")

    lab = Lab()
    await lab.play(gap, closes(1006))
    assert lab.frames == ["ready", "ready"]
    assert [(cursor, seconds) for _, cursor, seconds in lab.opened] == [(None, 0), ("epoch1:0", 0)]


@virtual_time
async def test_a_link_that_gets_no_ready_is_given_up_after_fifteen_seconds() -> None:
    lab = Lab()
    await lab.play(silent, closes(1006))
    assert 15 < lab.opened[1][2] < 16


@virtual_time
async def test_a_silent_link_is_probed_and_then_given_up_and_any_sign_of_life_keeps_it() -> None:
    async def alive_for_a_while(lab: Lab, handlers: LinkHandlers) -> LinkEnd:
        handlers.frame(lab.world.ready(resumed=False))  # type: ignore[arg-type]
        for _ in range(5):
            await asyncio.sleep(25)
            handlers.alive()
        assert lab.sent == []
        return await silent(lab, handlers)

    lab = Lab()
    await lab.play(alive_for_a_while, closes(1006))
    assert lab.sent == ["probe"]
    assert 165 < lab.opened[1][2] < 166


@virtual_time
async def test_a_transport_that_never_gets_through_is_left_and_tried_again_when_the_other_has_ended() -> None:
    blocked = closes(1006, is_ready=False)
    lab = Lab()
    await lab.play(blocked, blocked, closes(1012), blocked, closes(1012), transports=2)
    assert [name for name, _, _ in lab.opened] == ["socket", "socket", "stream", "socket", "stream"]


@virtual_time
async def test_it_stays_closed_where_the_server_says_so_and_tells_why() -> None:
    lab = Lab()
    await lab.play(closes(4503, ChatError("account_blocked", "Blocked.")))
    assert lab.statuses[-1] == ("closed", "account_blocked")
    lab = Lab()
    await lab.play(closes(4500))
    assert lab.statuses[-1] == ("closed", "unauthorized")


@virtual_time
async def test_a_constant_token_that_has_expired_closes_it_instead_of_being_sent_for_ever() -> None:
    lab = Lab()
    await lab.play(closes(4001))
    assert lab.statuses[-1] == ("closed", "not_signed_in")


@virtual_time
async def test_a_server_that_accepts_and_closes_at_once_is_not_asked_ever_faster() -> None:
    lab = Lab()
    await lab.play(*[closes(1006)] * 6)
    pauses = [later[2] - earlier[2] for earlier, later in zip(lab.opened, lab.opened[1:], strict=False)]
    assert all(pause >= 0.25 * 2**n for n, pause in enumerate(pauses))


@virtual_time
async def test_a_sign_in_that_fails_is_asked_again() -> None:
    asked = 0

    async def get_token(_: bool) -> str | None:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise OSError("no network")
        return None

    statuses: list[tuple[str, str | None]] = []
    options = ConnectionOptions(
        "http://chat/api/v1",
        get_token,
        [],
        lambda _: None,
        lambda status, error: statuses.append((status, error.code if error else None)),
    )
    await Connection(_with_one_transport(options)).run()
    assert statuses == [
        *(("connecting", None), ("offline", "network")) * 2,
        *(("connecting", None), ("closed", "not_signed_in")),
    ]


def _with_one_transport(options: ConnectionOptions) -> ConnectionOptions:
    def never(*_: object) -> Any:
        raise AssertionError

    return ConnectionOptions(options.api, options.get_token, [never], options.frame, options.status)
