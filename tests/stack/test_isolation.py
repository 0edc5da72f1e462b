"""Runs the table of `isolation.py` on the real services: nobody reads, changes, spends or stops what is another user's.

Each cell is one test. After it every row of Ada's is what it was, and no answer had a word of hers that was not sent.
The last tests show that what ran all the while still runs: her turn, her socket, her sign-in.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import pytest

from server.api.router import ROUTES
from server.http.routes import Route
from tests.conftest import NewServer
from tests.stack.chat_client import TIMEOUT, Json
from tests.stack.isolation import (
    ENDPOINTS,
    FRAMES,
    REFUSALS,
    REFUSALS_OF_TICKETS,
    STRANGERS,
    TICKETED,
    Answer,
    Attempt,
    Foreigner,
    Refusal,
    expected,
    expected_of_ticket,
)
from tests.stack.isolation_scene import Scene, isolation_scene
from tests.stack.running_stack import RunningStack

SOCKET: Final = "/api/v1/chat/stream"
MESSAGE: Final = "/api/v1/chat/message"
HANDSHAKE: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
"""Sent as a plain request, since clients do not read the answer to a refused handshake."""
NAMES: Final = {f"{route.method} {route.path}": route for route in ROUTES}


@pytest.fixture(scope="module")
async def scene(stack: RunningStack, new_shared_server: NewServer, server_env: dict[str, str]) -> AsyncIterator[Scene]:
    server = await new_shared_server(REDIS_URL=None, TURN_TIMEOUT_SECONDS="280")  # a turn runs through all of this
    async with isolation_scene(stack, server.url, server_env) as made:
        yield made


@pytest.fixture(scope="module")
async def last_rows(scene: Scene) -> list[Any]:
    """Every row of Ada's after the last cell."""
    return await scene.rows()


@pytest.fixture
async def nothing_of_hers_changes(scene: Scene, last_rows: list[Any]) -> AsyncIterator[None]:
    """Every row of Ada's after each cell is what it was after the one before."""
    if await scene.goes_on():
        last_rows[:] = await scene.rows()
    yield
    before, last_rows[:] = last_rows.copy(), await scene.rows()
    assert [(old, new) for old, new in zip(before, last_rows, strict=True) if old != new] == []


cells = pytest.mark.usefixtures("nothing_of_hers_changes")


@dataclass(frozen=True, slots=True)
class Response:
    """An answer's status, and its headers and body as text."""

    status: int
    text: str
    body: str

    @property
    def refusal(self) -> tuple[int, str]:
        return self.status, json.loads(self.body).get("code", "") if self.body else ""


def filled(value: Any, ids: Any) -> Any:
    """The value with Ada's ids in place of the placeholders."""
    if isinstance(value, dict):
        return {name: filled(one, ids) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, ids) for one in value]
    return re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], value) if isinstance(value, str) else value


async def send(scene: Scene, route: Route, attempt: Attempt, headers: dict[str, str], **query: str) -> Response:
    """Send the request, again if a service is slow or the sender's turn has not ended. Of an event stream only the
    first event is read."""
    async with asyncio.timeout(2 * TIMEOUT):
        while True:
            answer = await send_once(scene, route, attempt, headers, **query)
            if answer.status != 503 and (answer.status, route.path) != (202, MESSAGE):
                return answer
            await asyncio.sleep(0.3)


async def send_once(scene: Scene, route: Route, attempt: Attempt, headers: dict[str, str], **query: str) -> Response:
    path = filled(route.path, {**scene.ids, **filled(attempt.path, scene.ids)})
    sent = filled({"query": {**attempt.query, **query}, "body": attempt.body, "headers": attempt.headers}, scene.ids)
    async with scene.http.request(
        route.method,
        f"{scene.url}{path}",
        params=sent["query"],
        json=sent["body"],
        headers={**sent["headers"], **headers},
    ) as response:
        is_stream = response.content_type == "text/event-stream"
        body = (await first_event(response)) if is_stream else await response.text()
        answer = Response(response.status, f"{dict(response.headers)}\n{body}", body)
    reveals_nothing(scene, answer.text, f"{path} {sent}")
    return answer


async def first_event(response: aiohttp.ClientResponse) -> str:
    """An event stream until the end of its first event with data."""
    text = ""
    async with asyncio.timeout(TIMEOUT):
        while "\ndata: " not in text or not text.endswith("\n\n"):
            text += (await response.content.readline()).decode()
    return text


def reveals_nothing(scene: Scene, received: str, sent: str) -> None:
    """Of Ada's words, what was received has none but those that were sent."""
    assert [word for word in scene.words if word in received and word not in sent] == []


@dataclass(frozen=True, slots=True)
class Socket:
    """A foreigner's socket, each of whose frames is searched for what is Ada's."""

    scene: Scene
    socket: aiohttp.ClientWebSocketResponse
    sent: list[str]

    async def send(self, **frame: Any) -> None:
        self.sent.append(json.dumps(frame))
        await self.socket.send_str(self.sent[-1])

    async def next(self) -> Json:
        frame: Json = await asyncio.wait_for(self.socket.receive_json(), TIMEOUT)
        reveals_nothing(self.scene, json.dumps(frame), "".join(self.sent))
        return frame

    async def answer(self) -> str:
        """The type of the next frame that is no event, or the code of an error."""
        while "seq" in (frame := await self.next()):
            pass
        return str(frame.get("code", frame["type"]))

    async def refusal(self) -> tuple[str, int | None]:
        """The code of the error, which must be the only frame, and the close code after it."""
        error = await self.next()
        message = await asyncio.wait_for(self.socket.receive(), TIMEOUT)
        assert (error["type"], message.type) == ("error", aiohttp.WSMsgType.CLOSE), (error, message)
        return error["code"], message.data


@asynccontextmanager
async def socket(
    scene: Scene, query: Mapping[str, str], headers: Mapping[str, str], offered: Iterable[str] = ()
) -> AsyncIterator[Socket]:
    sent = filled(dict(query), scene.ids)
    async with scene.http.ws_connect(
        f"{scene.url}{SOCKET}", params=sent, headers=headers, protocols=tuple(offered)
    ) as opened:
        yield Socket(scene, opened, [str(sent)])


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def check(answer: Response, expectation: Answer) -> None:
    if isinstance(expectation, Refusal):
        assert answer.refusal == (expectation.status, expectation.code), answer
    else:
        assert answer.status in (expectation if isinstance(expectation, tuple) else (expectation,)), answer


@cells
@pytest.mark.parametrize("name", [name for name, route in NAMES.items() if route.access == "public"])
async def test_a_public_endpoint_tells_nobody_what_is_anothers(scene: Scene, name: str) -> None:
    """Some at once: answers of those that mail are delayed, so that none tells whether the account exists. Not all:
    Supabase Auth checks one password after the other."""
    route, some = NAMES[name], asyncio.Semaphore(4)

    async def answer(attempt: Attempt, who: Foreigner) -> None:
        async with some:
            answer = await send(scene, route, attempt, bearer(scene.credentials[who].token("read")))
        check(answer, expected(route, attempt, who))

    await asyncio.gather(*(answer(attempt, who) for attempt in ENDPOINTS[name] for who in Foreigner))


@cells
@pytest.mark.parametrize("who", Foreigner)
@pytest.mark.parametrize(
    "name", [name for name, route in NAMES.items() if route.access != "public" and route.credential != "socket"]
)
async def test_an_endpoint_gives_nobody_what_is_anothers(scene: Scene, name: str, who: Foreigner) -> None:
    route = NAMES[name]
    for attempt in ENDPOINTS[name]:
        token = scene.credentials[who].token(route.access)
        if attempt.ends_sender and who in STRANGERS:
            token = (await scene.another(who)).access_token
        check(await send(scene, route, attempt, bearer(token)), expected(route, attempt, who))


@cells
@pytest.mark.parametrize("who", Foreigner)
@pytest.mark.parametrize("name", TICKETED)
async def test_a_ticket_opens_nothing_of_anothers(scene: Scene, name: str, who: Foreigner) -> None:
    route = NAMES[name]
    for attempt in TICKETED[name]:
        ticket = scene.credentials[who].ticket(route.access)
        check(await send(scene, route, attempt, {}, ticket=ticket), expected_of_ticket(attempt, who))


@cells
@pytest.mark.parametrize("who", Foreigner)
@pytest.mark.parametrize("way", ["header", "ticket", "subprotocol", "first frame"])
async def test_a_socket_shows_nobody_anothers_session(scene: Scene, way: str, who: Foreigner) -> None:
    credentials = scene.credentials[who]
    token = credentials.token("chat")
    for attempt in ENDPOINTS[f"GET {SOCKET}"]:
        expectation = expected(NAMES[f"GET {SOCKET}"], attempt, who)
        if way == "header" and token is not None and isinstance(expectation, Refusal):
            check(await send(scene, NAMES[f"GET {SOCKET}"], attempt, HANDSHAKE | bearer(token)), expectation)
            continue
        query = attempt.query | ({"ticket": credentials.ticket("chat")} if way == "ticket" else {})
        offered = ("chat.v1", f"bearer.{token}") if way == "subprotocol" and token is not None else ()
        headers = bearer(token) if way == "header" else {}
        async with socket(scene, query, headers, offered) as device:
            if way == "first frame" and token is not None:
                await device.send(type="auth", token=token)
            elif token is None and way != "ticket":
                await device.send(type="ping")
            if isinstance(expectation, Refusal):
                refused = REFUSALS_OF_TICKETS.get(who, expectation) if way == "ticket" else expectation
                assert await device.refusal() == (refused.code, refused.close)
            else:
                ready = await device.next()
                assert (ready["type"], ready["resumed"], ready["turn"], ready["queued"]) == ("ready", False, None, [])
                assert ready["user_id"] != scene.ada.id


@cells
@pytest.mark.parametrize("who", Foreigner)
@pytest.mark.parametrize("kind", FRAMES)
async def test_a_frame_does_nothing_to_anothers_session(scene: Scene, kind: str, who: Foreigner) -> None:
    """Of those who are refused, the frame follows their token, or comes without one."""
    token = scene.credentials[who].token("chat")
    for frame, answer in FRAMES[kind]:
        async with socket(scene, {}, bearer(token) if who in STRANGERS else {}) as device:
            if who in STRANGERS:
                assert (await device.next())["type"] == "ready"
                await device.send(**filled(frame, scene.ids))
                assert await device.answer() == answer
            else:
                if token is not None:
                    await device.send(type="auth", token=token)
                await device.send(**filled(frame, scene.ids))
                assert await device.refusal() == (REFUSALS[who].code, REFUSALS[who].close)


async def test_what_ran_meanwhile_still_runs_and_what_was_there_still_is(scene: Scene) -> None:
    assert await scene.ada.get("/agent/memory") == scene.memory
    assert (await scene.ada.get("/auth/me"))["id"] == scene.ada.id
    await scene.ends()
    assert {frame.get("turn_id") for frame in scene.device.frames if "seq" in frame} - {None} == scene.turns
    assert await scene.ada.say("ECHO still here")
