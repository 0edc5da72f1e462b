"""One scenario that is being played: its connections, what the client is to do, and what it must show in the end."""

import asyncio
import base64
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

from clients.conformance.world import USER_ID, Json, World

PATIENCE = 60.0
"""Seconds that a client has for each step: its backoff included."""


class Violation(AssertionError):  # noqa: N818 - the word of the reports
    """The client broke a rule; the text says which."""


class Link(Protocol):
    """A connection of the client, WebSocket or event stream."""

    after: str | None
    """The cursor that it resumes from."""
    token: str

    async def send(self, *frames: Json) -> None: ...

    async def close(self, code: int) -> None:
        """`0` cuts the line without a close."""
        ...

    async def receive(self, frame_type: str) -> Json:
        """The client's next frame, which must be of this type. Pings are answered and skipped."""
        ...


class Run:
    """Scenarios call the methods; the HTTP server fills the queues."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self.world = World()
        self.are_sockets_blocked = False
        self.page_size = 50
        self.is_history_forbidden = False
        self.history_read = asyncio.Event()
        self.history_answered = asyncio.Event()
        """Cleared: the history is read at once, and answered when this is set."""
        self.history_answered.set()
        self.token_seconds = 3600.0
        self.tokens = [self.new_token()]
        self.expired_asked = 0
        """How often the client asked for a token because the last one had expired."""
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.links: asyncio.Queue[Link] = asyncio.Queue()
        self.actions: asyncio.Queue[Json] = asyncio.Queue()
        self.posts: asyncio.Queue[tuple[Json, asyncio.Future[tuple[int, Json]]]] = asyncio.Queue()
        """Commands over REST: method and body, and where the answer goes."""
        self.reports: asyncio.Queue[tuple[Json, asyncio.Future[str | None]]] = asyncio.Queue()
        self._is_over = False
        self.frames: list[Json] = []
        """Everything that was sent to the client, for whoever compares it with the schema."""

    def new_token(self) -> str:
        """A token in the form of a JWT, so that the client can see when it expires."""
        claims = {"sub": USER_ID, "exp": int(time.time() + self.token_seconds), "jti": uuid.uuid4().hex}
        return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.sig"

    # -- what the HTTP server does ----------------------------------------------------------------------------------

    async def compared(self, report: Json) -> str | None:
        """How this report differs from what the scenario waits for, or None; also None once the scenario is over."""
        if self._is_over:
            return None
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.reports.put_nowait((report, answer))
        return await answer

    def end(self) -> None:
        """Nobody waits for a report any more."""
        self._is_over = True
        while not self.reports.empty():
            self.reports.get_nowait()[1].set_result(None)

    # -- what scenarios do ----------------------------------------------------------------------------------------

    async def link(self, after: str | None = None) -> Link:
        """The client's next connection; `after` is the cursor that it must resume from."""
        link: Link = await self._within(self.links.get(), "the client did not connect")
        if link.after != after:
            raise Violation(f"connected with after={link.after}, expected {after}")
        return link

    async def greeted(self) -> Link:
        """The client's first connection, which got `ready`."""
        link = await self.link()
        await link.send(self.world.ready(resumed=False))
        return link

    def client(self, **action: Any) -> None:
        """Have the client do something: `do="send", text=…`, `cancel`, `retry`, `interrupt`, `older`."""
        self.actions.put_nowait(action)

    @asynccontextmanager
    async def post(self, path: str) -> AsyncIterator[tuple[Json, asyncio.Future[tuple[int, Json]]]]:
        """The client's next command over REST; set the result to status and body."""
        body, answer = await self._within(self.posts.get(), f"the client did not post {path}")
        if body.pop("path") != path:
            raise Violation(f"posted something else than {path}: {body}")
        yield body, answer

    async def accepted(self, link: Link, content: str) -> Json:
        """Have the client send this, and acknowledge it. Returns the turn."""
        self.client(do="send", text=content)
        frame = await link.receive("message")
        turn = self.world.accept(frame["content"], frame["client_message_id"])
        await link.send(ack(frame, turn))
        return turn

    async def shows(self, **expected: Any) -> None:
        """Wait until the client's report contains this. `messages` are compared as a whole list, others by value."""
        self.client(do="report")
        differences = "nothing was reported"
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            report, answer = await self._within(self.reports.get(), "the client did not report")
            differences = difference(expected, report)
            if not differences:
                answer.set_result(None)
                return
            answer.set_result(differences)
        raise Violation(differences)

    async def no_link(self, seconds: float = 1.5) -> None:
        """The client must not connect again."""
        try:
            await asyncio.wait_for(self.links.get(), seconds)
        except TimeoutError:
            return
        raise Violation("connected again")

    async def _within(self, waiting: Any, otherwise: str) -> Any:
        try:
            return await asyncio.wait_for(waiting, PATIENCE)
        except TimeoutError:
            raise Violation(otherwise) from None


def ack(frame: Json, turn: Json, *, duplicate: bool = False, position: int | None = None) -> Json:
    return {
        "type": "ack",
        "id": frame.get("id") or frame.get("client_message_id"),
        "turn_id": turn["id"],
        "message_id": turn["user_message"]["id"],
        "queue_position": position,
        "duplicate": duplicate,
    }


def error(frame: Json, code: str, message: str, *, retryable: bool, retry_after: int | None = None) -> Json:
    fields = {"type": "error", "id": frame["id"], "code": code, "message": message, "retryable": retryable}
    return fields if retry_after is None else fields | {"retry_after": retry_after}


def difference(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> str:
    """What is not as expected, field by field; empty if all is."""
    found = []
    for name, value in expected.items():
        shown = actual.get(name)
        if name == "messages" and isinstance(shown, list):
            shown = [
                {key: message.get(key) for key in wanted} for wanted, message in zip(value, shown, strict=False)
            ] + [*shown[len(value) :]]
        if shown != value:
            found.append(f"{name}: expected {value}, shown {shown}")
    return "; ".join(found)


def user(text: str, status: str = "sent", **more: Any) -> Json:
    return {"role": "user", "text": text, "status": status, **more}


def reply(text: str, status: str = "complete", **more: Any) -> Json:
    return {"role": "assistant", "text": text, "status": status, **more}
