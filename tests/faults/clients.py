"""A reconnecting device as authors of clients should write one: it uses the wire protocol and no code of the server.

It connects to any of several servers, resumes from its cursor, acts on every `ready`, sends unacknowledged messages
again, backs off with jitter, and has a transcript that reports lost and repeated events.
"""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Self

import aiohttp

from tests.faults.transcript import Json, Transcript
from tests.stack.chat_client import TIMEOUT, ChatUser

NO_CODE: Final = 1006
SHORTEST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 2.0
READ_TIMEOUT: Final = aiohttp.ClientTimeout(sock_connect=5, sock_read=30)


class Device:
    """Use as `async with Device(user, urls) as device:`. It stays connected to one of the urls, the first one first.

    `heartbeat`: seconds after which it disconnects from a silent server (half of it for the pong): few where one falls
    silent, else so many that a server on a busy machine does not seem silent. `first_pause`: about how many seconds it
    waits after the end of a connection; it doubles with each further attempt that fails."""

    def __init__(
        self,
        user: ChatUser,
        urls: Sequence[str],
        *,
        heartbeat: float = 60.0,
        first_pause: float = 0.2,
        chance: random.Random | None = None,
    ) -> None:
        self.user = user
        self.transcript = Transcript()
        self.connections = 0
        """The number of connections that got a first `ready`."""
        self.closes: Counter[int] = Counter()
        """The number of ended connections, by close code."""
        self.refusals: Counter[str] = Counter()
        """The number of errors in answer to its frames, by code."""
        self.stopped_because: str | None = None
        """The reason why it no longer reconnects."""
        self._urls = list(urls)
        self._next_url = self._urls[0]
        self._heartbeat = heartbeat
        self._first_pause = first_pause
        self._chance = chance or random.Random()
        self._unanswered: dict[str, Json] = {}
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._missing: set[str] = set()
        self._histories_due = 0
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(work()) for work in (self._stay_connected, self._read_missed)]
        for task in self._tasks:
            task.add_done_callback(lambda _: self._wake())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- what a test does with it --------------------------------------------------------------------------------

    async def say(self, content: str, **fields: Any) -> str:
        """Send a message, now or as soon as there is a connection, until it is accepted. Returns its id at once."""
        message_id = str(uuid.uuid4())
        await self._send({"type": "message", "client_message_id": message_id, "content": content, **fields}, message_id)
        return message_id

    async def cancel(self, turn_id: str) -> None:
        await self._send({"type": "cancel", "turn_id": turn_id}, f"cancel-{uuid.uuid4()}")

    async def retry(self, turn_id: str) -> None:
        """Request another attempt, until there is an answer."""
        await self._send({"type": "retry", "turn_id": turn_id}, f"retry-{uuid.uuid4()}")

    async def until(self, condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
        """Wait until the condition is true, and return its value. It is checked after every frame."""
        try:
            async with asyncio.timeout(timeout):
                while not (found := condition()):
                    for task in self._tasks:
                        if task.done():
                            task.result()
                    assert self.stopped_because is None, self.stopped_because
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {timeout:.0f} s: {self}") from None
        return found

    def __str__(self) -> str:
        seen = self.transcript
        turns = [(r.turn_id, r.attempt, r.text[-20:], r.turn and r.turn["status"]) for r in seen.replies.values()]
        return (
            f"user {self.user.id} at {seen.cursor}, connected: {self.connected}, connections: {self.connections}, "
            f"closes: {dict(self.closes)}, refusals: {dict(self.refusals)}, unanswered: {list(self._unanswered)}, "
            f"missing: {self._missing}, turns: {turns}, faults: {seen.faults}"
        )

    async def end_of(self, message_id: str, attempt: int = 1, timeout: float = TIMEOUT) -> Json:
        """The turn of one of its messages as this attempt, or a later one, ended."""
        return dict(await self.until(lambda: self._end(message_id, attempt), timeout))

    def _end(self, message_id: str, attempt: int) -> Json | None:
        reply = self.transcript.replies.get(self.transcript.turn_of.get(message_id, ""))
        return reply.turn if reply is not None and reply.attempt >= attempt else None

    def text(self, message_id: str) -> str:
        """The text that it has of the reply to one of its messages."""
        reply = self.transcript.replies.get(self.transcript.turn_of.get(message_id, ""))
        return reply.text if reply is not None else ""

    @property
    def is_quiet(self) -> bool:
        """All its frames were answered, all turns that it knows have ended, and no missed turn is to be read."""
        replies = self.transcript.replies.values()
        return not (self._unanswered or self._missing or self._histories_due) and all(reply.turn for reply in replies)

    async def quiet(self, timeout: float = TIMEOUT) -> None:
        """Return when it is connected and quiet."""
        await self.until(lambda: self.is_quiet and self.connected, timeout)

    @property
    def port(self) -> int:
        """The local port of its connection."""
        assert self._socket is not None
        return int(self._socket.get_extra_info("sockname")[1])

    @property
    def connected(self) -> bool:
        return self._socket is not None

    # -- connections ---------------------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        pause = self._first_pause
        while self.stopped_because is None:
            connected_before = self.connections
            try:
                code = await self._connection()
            except aiohttp.WSServerHandshakeError as refusal:
                code = 4001 if refusal.status == 401 else NO_CODE
            except (aiohttp.ClientError, OSError, TimeoutError):
                code = NO_CODE
            self.closes[code] += 1
            if code == 4001:
                await self._refresh()
            elif code >= 4500:
                self.stopped_because = f"closed with {code}"
            self._wake()
            self._next_url = self._chance.choice(self._urls)
            if self.connections > connected_before:
                pause = self._first_pause
            await asyncio.sleep(pause * self._chance.uniform(0.5, 1.5))
            pause = min(max(pause * 2, SHORTEST_PAUSE), LONGEST_PAUSE)

    async def _connection(self) -> int:
        """One connection to its end. Its close code."""
        query = {"after": self.transcript.cursor} if self.transcript.cursor else {}
        async with asyncio.timeout(self._heartbeat):
            socket = await self.user.http.ws_connect(
                f"{self._next_url}/api/v1/chat/stream",
                headers=self.user.headers,
                params=query,
                heartbeat=self._heartbeat,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                max_msg_size=0,
            )
        try:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    await self._receive(socket, message.json())
                    self._wake()
        finally:
            self._socket = None
            await socket.close()
        return socket.close_code or NO_CODE

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse, frame: Json) -> None:
        match frame["type"]:
            case "ready":
                self.connections += self._socket is None
                self._socket = socket
                self._missing |= self.transcript.ready(frame)
                self._histories_due += not frame["resumed"]
                for unanswered in tuple(self._unanswered.values()):
                    await socket.send_json(unanswered)
            case "ack":
                sent = self._unanswered.pop(frame["id"], None)
                if sent is not None and sent["type"] == "message":
                    self.transcript.accepted(frame["id"], frame["turn_id"])
            case "error":
                self._refused(frame)
            case _:
                self.transcript.receive(frame)
                self._unanswered.pop(frame.get("client_message_id", ""), None)

    async def _send(self, frame: Json, frame_id: str) -> None:
        frame["id"] = frame_id
        self._unanswered[frame_id] = frame
        if self._socket is not None:
            with suppress(ConnectionError):
                await self._socket.send_json(frame)

    def _refused(self, error: Json) -> None:
        """Send a message again that may be accepted later; drop a command that can no longer succeed."""
        frame = self._unanswered.get(error.get("id", ""))
        self.refusals[error["code"]] += 1
        if frame is not None and error["retryable"]:
            loop = asyncio.get_running_loop()
            loop.call_later(error.get("retry_after", 1.0), lambda: self._tasks.append(loop.create_task(again())))
        elif frame is not None and frame["type"] != "message":
            del self._unanswered[frame["id"]]
        elif not error["retryable"]:
            self.stopped_because = f"refused: {error}"

        async def again() -> None:
            assert frame is not None
            if frame["id"] in self._unanswered:
                await self._send(frame, frame["id"])

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    # -- missed turns ---------------------------------------------------------------------------------------------

    async def _read_missed(self) -> None:
        """Read the turns that it missed, according to `ready`."""
        while True:
            await self._changed.wait()
            while self._histories_due or self._missing:
                if due := self._histories_due:
                    self._missing |= await self._unknown_turns()
                    self._histories_due -= due
                for turn_id in tuple(self._missing):
                    self.transcript.read(await self.get(f"/chat/turns/{turn_id}"))
                    self._missing.discard(turn_id)
                self._wake()

    async def _unknown_turns(self) -> set[str]:
        """Turns of the history that this device does not know."""
        unknown: set[str] = set()
        query = ""
        while True:
            page = await self.get(f"/chat/history?limit=100{query}")
            found = {message["turn_id"] for message in page["data"]} - set(self.transcript.replies)
            unknown |= found
            if not (found and page["has_more"]):
                return unknown
            query = f"&before={page['next_cursor']}"

    async def get(self, path: str) -> Any:
        """Read from any server that answers, without a time limit."""
        pause = SHORTEST_PAUSE
        while True:
            url = self._chance.choice(self._urls)
            try:
                async with self.user.http.get(
                    f"{url}/api/v1{path}", headers=self.user.headers, timeout=READ_TIMEOUT
                ) as response:
                    if response.status == 200:
                        return await response.json()
                    assert response.status in (429, 503), (path, response.status, await response.text())
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(pause * self._chance.uniform(0.5, 1.5))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _refresh(self) -> None:
        """Fresh tokens for the expired ones."""
        for url in self._urls:
            with suppress(aiohttp.ClientError, OSError):
                async with self.user.http.post(
                    f"{url}/api/v1/auth/refresh", json={"refresh_token": self.user.refresh_token}
                ) as response:
                    body = await response.json()
                    assert response.status == 200, body
                    self.user.access_token, self.user.refresh_token = body["access_token"], body["refresh_token"]
                    return


async def all_quiet(devices: Sequence[Device], timeout: float = TIMEOUT) -> None:
    """Return when every device is connected and quiet, and all of them know the same turns."""
    async with asyncio.timeout(timeout):
        while True:
            for device in devices:
                await device.quiet(timeout)
            known = [(device.user.id, frozenset(device.transcript.replies)) for device in devices]
            if all(device.is_quiet for device in devices) and len(set(known)) == len({user for user, _ in known}):
                return
            await asyncio.sleep(0.1)
