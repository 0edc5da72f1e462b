"""Frames of a WebSocket and parameters of event streams by Hypothesis: valid ones, nearly valid ones, and anything."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import aiohttp
import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.server import Identity, Target
from tests.fuzz.target import Tally

EXAMPLES: Final = 20
ANSWER_SECONDS: Final = 60.0
_SETTINGS = settings(
    database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), print_blob=False
)
_TEXT = st.text(max_size=20) | st.sampled_from(
    ["\0", "\ud800", "\u202e", "'; drop table turns; --", "../../etc", "%00"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=8,
)
_TYPES = st.sampled_from(["auth", "message", "cancel", "retry", "ping", "ready", "ack", "subscribe", ""])
_CONTENT = st.text(min_size=1, max_size=40) | st.integers(1, 70_000).map(lambda size: "x" * size)


def _fields(turn_id: str) -> dict[str, st.SearchStrategy[Any]]:
    """The fields of clients' frames: mostly right, sometimes not."""
    right: dict[str, st.SearchStrategy[Any]] = {
        "id": st.text("abc-123", min_size=1, max_size=12),
        "client_message_id": st.text("abc-123", min_size=1, max_size=12),
        "content": _CONTENT,
        "on_busy": st.sampled_from(["enqueue", "reject", "interrupt"]),
        "turn_id": st.uuids().map(str) | st.just(turn_id),
        "token": st.text("abc.", min_size=1, max_size=40),
    }
    return {name: st.one_of(strategy, strategy, strategy, _JSON) for name, strategy in right.items()}


def frames(turn_id: str) -> st.SearchStrategy[str | bytes]:
    """What a client may send in one frame."""
    record = st.fixed_dictionaries({"type": st.one_of(_TYPES, _TYPES, _JSON)}, optional=_fields(turn_id))
    messages = st.fixed_dictionaries(
        {"type": st.just("message"), "client_message_id": st.text("abc", min_size=1, max_size=6), "content": _CONTENT}
    )
    text = st.one_of(record, messages, _JSON).map(json.dumps)
    deep = st.integers(1, 3_000).map(lambda depth: "[" * depth + "]" * depth)
    cut = st.tuples(text, st.integers(0, 60)).map(lambda pair: pair[0][: pair[1]])
    return st.one_of(text, text, text, cut, deep, st.text(max_size=60).filter(_encodes), st.binary(max_size=60))


def _encodes(text: str) -> bool:
    return text.isprintable() or "\ud800" not in text


_CURSORS = st.one_of(
    st.builds("{}:{}".format, st.text("abcXYZ09", max_size=14), st.integers(-2, 2**70)),
    st.builds("{}:{}:{}".format, st.text("abc", max_size=12), st.integers(0, 9), st.text("abc-_", max_size=30)),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40),
)


class Streams:
    """Sends frames and opens event streams on the target. `seed` decides everything."""

    def __init__(self, target: Target, tally: Tally, seed: int) -> None:
        self._target = target
        self._tally = tally
        self._random = random.Random(seed)
        self._url = f"http://127.0.0.1:{target.port}/api/v1/chat"

    async def run(self, inputs: int) -> None:
        """Send about so many frames, and a tenth as many event streams."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as http:
            until = self._tally.inputs["frames"] + inputs
            while self._tally.inputs["frames"] < until:
                who = self._random.choice(self._target.identities)
                lists = st.lists(frames(self._target.victim_turn), min_size=1, max_size=8)
                await self._for_each(lists, partial(self._talk, http, who))
            while self._tally.inputs["event streams"] < inputs // 10:
                who = self._random.choice(self._target.identities)
                query = st.fixed_dictionaries({}, optional={"after": _CURSORS, "ticket": _TEXT.filter(str.isprintable)})
                pairs = st.tuples(query, st.none() | _CURSORS)
                await self._for_each(pairs, partial(self._listen, http, who))

    async def _for_each(self, strategy: st.SearchStrategy[Any], act: Callable[[Any], Awaitable[None]]) -> None:
        """Act on some examples of the strategy. Hypothesis draws them first, since it runs no coroutines."""
        drawn: list[Any] = []

        @hypothesis.seed(self._random.getrandbits(32))
        @settings(_SETTINGS, max_examples=EXAMPLES)
        @given(strategy)
        def draw(example: Any) -> None:
            drawn.append(example)

        draw()
        for example in drawn:
            await act(example)

    async def _talk(self, http: aiohttp.ClientSession, who: Identity, sent: list[str | bytes]) -> None:
        """One socket: all frames, then a ping; read until its pong or the close."""
        self._tally.inputs["frames"] += len(sent)
        headers = {"Authorization": f"Bearer {who.token}"} if who.token else {}
        try:
            async with http.ws_connect(f"{self._url}/stream", headers=headers, max_msg_size=0) as socket:
                for frame in sent:
                    await (socket.send_bytes(frame) if isinstance(frame, bytes) else socket.send_str(frame))
                await socket.send_json({"type": "ping", "id": "the-last"})
                await self._read(socket, who)
        except aiohttp.WSServerHandshakeError as refusal:
            self._tally.judge(self._target, who, "/api/v1/chat/stream", refusal.status, f"{refusal.headers}")
        except ConnectionError:
            self._tally.closes["while sending"] += 1
        except TimeoutError:
            self._tally.wrong("a socket did not answer", repr(sent))

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, who: Identity) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                self._tally.look(self._target, who, "the socket", message.data)
                frame = json.loads(message.data)
                if frame.get("code") == "internal_error":
                    self._tally.wrong("an internal error in a frame", message.data)
                if frame == {"type": "pong", "id": "the-last"}:
                    return
        self._tally.closes[f"{socket.close_code}"] += 1
        if socket.close_code == aiohttp.WSCloseCode.INTERNAL_ERROR:
            self._tally.wrong("a socket was closed with 1011", str(message.extra))

    async def _listen(
        self, http: aiohttp.ClientSession, who: Identity, asked: tuple[dict[str, str], str | None]
    ) -> None:
        """One event stream, until its first event or the refusal. `asked`: query and Last-Event-ID."""
        query, last = asked
        self._tally.inputs["event streams"] += 1
        headers = {"Authorization": f"Bearer {who.token}"} if who.token and "ticket" not in query else {}
        if last is not None:
            headers["Last-Event-ID"] = last
        try:
            async with http.get(f"{self._url}/events", params=query, headers=headers) as response:
                is_stream = response.content_type == "text/event-stream"
                read = response.content.readuntil(b"\n\n") if is_stream else response.read()
                text = (await read).decode()
                self._tally.judge(self._target, who, "/api/v1/chat/events", response.status, text)
        except TimeoutError:
            self._tally.wrong("an event stream did not answer", repr((query, last)))
