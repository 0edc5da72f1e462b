"""The demo model with scripted replies: a directive in the user's message determines the reply.

    python -m tests.scripted_model --port N

Only the last directive of the last user message counts, at the start of a line or after other text:

    SLOW <n> <delay>            n words (w0 w1 …), `delay` seconds before each
    ECHO <text>                 the rest of the line
    CALL <tool> <json object>   one call of the tool; then, with its result in the prompt, "done: <result>"
    CALL AT <gate> <tool> <…>   the same, the call waits at a gate, where a test can change things for the next step
    CALL THEN <gate> <tool> <…> the same, the text after it waits at a gate
    CALL QUIETLY <tool> <…>     the same, without text after it
    CALL ENDLESSLY <tool> <…>   the same call again and again
    CALLS [[<tool>, {…}], …]    several calls in one reply; then, with their results, "done: <n> results"
    REASON                      reasoning_content first, then text
    MUSE                        only reasoning_content
    POLICY                      refused (400) by the content policy
    GATE <name> [<n> [<m>]]     n words (default 0), a wait until POST /gate/<name>, then m words (default 3)
    STALL <n>                   n words, then no more data while the client is connected
    HANG                        no data at all: not even a status line
    DROP                        3 words, and shortly afterwards the connection is cut
    ERR <status> [<times>]      this HTTP status; with `times`, only for the first so many requests with this text

Anything else is answered as by the demo model, without delay. Control endpoints for tests:

    POST   /gate/<name>         opens the gate for good, for those waiting and those to come
    GET    /gate/<name>         answers when a reply has reached the closed gate: {"name", "waiting"}
    DELETE /gate/<name>         closes it again
    GET    /log[?contains=text] requests seen, oldest first: {"number", "authorization", "user", "model", "stream",
                                "tools", "text", "directive", "state", "words", "messages"}; state is running |
                                finished | refused | gone (the client left, or was cut off); words were written
                                to the client until now
    DELETE /log                 forgets them
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any

import click
from aiohttp import web

from server.stack.demo_model.api import create_app as create_model_app
from server.stack.demo_model.model import DemoModel
from server.stack.demo_model.wire import ApiError, ChatRequest, Piece, Text
from tests.model_script import AtGate, Cut, Directive, Pause, Silence, last_directive, steps

_authorization: ContextVar[str] = ContextVar("authorization", default="")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ConnectionCutError(Exception):
    """Raised to have the client's connection cut."""


@dataclass(slots=True)
class Seen:
    """One chat request as the log shows it."""

    number: int
    authorization: str
    user: str | None
    model: str
    stream: bool
    tools: list[str]
    text: str
    directive: str | None
    messages: list[dict[str, Any]]
    state: str = "running"
    words: int = 0

    def as_json(self) -> dict[str, Any]:
        return {part.name: getattr(self, part.name) for part in fields(self)}


@dataclass(slots=True)
class Gate:
    """Where replies wait for a test, and a test for replies."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0

    async def pass_through(self) -> None:
        self.waiting += 1
        self.reached.set()
        try:
            await self.opened.wait()
        finally:
            self.waiting -= 1
            if not self.waiting:
                self.reached.clear()


class Script:
    """The state of the model: its requests and its gates."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._gates: dict[str, Gate] = {}
        self._asked: Counter[str] = Counter()
        self._demo = DemoModel(word_delay=0)

    def gate(self, name: str) -> Gate:
        return self._gates.setdefault(name, Gate())

    async def reply(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        """The reply that the last directive asks for, logged from beginning to end."""
        directive = last_directive(request.last_user_text)
        seen = self._record(request, directive)
        try:
            async with aclosing(self._play(directive, request) if directive else self._demo.reply(request)) as pieces:
                async for piece in pieces:
                    yield piece
                    seen.words += isinstance(piece, Text)
            seen.state = "finished"
        except ApiError:
            seen.state = "refused"
            raise
        finally:
            if seen.state == "running":
                seen.state = "gone"

    def _record(self, request: ChatRequest, directive: Directive | None) -> Seen:
        seen = Seen(
            number=self._asked.total() + 1,
            authorization=_authorization.get(),
            user=request.user,
            model=request.model,
            stream=request.stream,
            tools=[tool.function.name for tool in request.tools or []],
            text=request.last_user_text,
            directive=directive.source if directive else None,
            messages=[message.model_dump(exclude_none=True) for message in request.messages],
        )
        self.seen.append(seen)
        self._asked[seen.text] += 1
        return seen

    async def _play(self, directive: Directive, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        for step in steps(directive, request, asked_before=self._asked[request.last_user_text] - 1):
            match step:
                case Pause(seconds=seconds):
                    await asyncio.sleep(seconds)
                case AtGate(name=name):
                    await self.gate(name).pass_through()
                case Silence():
                    await asyncio.Event().wait()
                case Cut():
                    raise ConnectionCutError
                case piece:
                    yield piece


def create_app(script: Script | None = None) -> web.Application:
    """The scripted model with its control endpoints. Serve it with handler_cancellation, or no client ever leaves."""
    script = script or Script()
    app = create_model_app(script)
    app.middlewares.append(_watch_connection)
    control = _Control(script)
    app.add_routes(
        [
            web.get("/gate/{name}", control.gate_reached),
            web.post("/gate/{name}", control.open_gate),
            web.delete("/gate/{name}", control.close_gate),
            web.get("/log", control.log),
            web.delete("/log", control.forget),
        ]
    )
    return app


class _Control:
    def __init__(self, script: Script) -> None:
        self._script = script

    async def gate_reached(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        gate = self._script.gate(name)
        await gate.reached.wait()
        return web.json_response({"name": name, "waiting": gate.waiting})

    async def open_gate(self, request: web.Request) -> web.Response:
        self._script.gate(request.match_info["name"]).opened.set()
        return web.Response(status=204)

    async def close_gate(self, request: web.Request) -> web.Response:
        self._script.gate(request.match_info["name"]).opened.clear()
        return web.Response(status=204)

    async def log(self, request: web.Request) -> web.Response:
        wanted = request.query.get("contains", "")
        return web.json_response([seen.as_json() for seen in self._script.seen if wanted in seen.text])

    async def forget(self, _request: web.Request) -> web.Response:
        self._script.seen.clear()
        return web.Response(status=204)


@web.middleware
async def _watch_connection(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the script the key of the request, and cut the connection when the script asks for it."""
    _authorization.set(request.headers.get("Authorization", ""))
    try:
        return await handler(request)
    except ConnectionCutError:
        if request.transport is not None:
            request.transport.close()
        return web.Response()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, required=True)
def main(host: str, port: int) -> None:
    """Serve the scripted model."""
    web.run_app(create_app(), host=host, port=port, print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
