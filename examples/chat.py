"""A terminal chat in one file: signs in, chats over the WebSocket, and handles lost connections and restarts.

    uv run python examples/chat.py --email me@example.com [--url http://127.0.0.1:8080]

It needs aiohttp and no code of the server: copy it as the start of your own client. `Chat` shows what each client must
do: resend unacknowledged messages with the same id; resume from the cursor; and if that is not possible, use the text
in `ready` and fetch the turns that ended meanwhile."""

import argparse
import asyncio
import getpass
import os
import random
import sys
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp

Json = dict[str, Any]
HELP = "Type a message; /stop ends the reply, /retry repeats the last turn, /memory, /usage, /quit."


class RefusedError(Exception):
    """The server refused a request; the message is the server's."""


class Account:
    """The tokens of one user, and REST calls with them."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.api = f"{url.rstrip('/')}/api/v1"
        self._tokens: Json = {}

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens['access_token']}"}

    async def sign_in(self, email: str, password: str, name: str | None) -> None:
        """Log in; if that fails, register. Raises RefusedError."""
        credentials = {"email": email, "password": password}
        status, body = await self._post("auth/login", credentials)
        if status == 401:
            status, body = await self._post("auth/register", credentials | ({"name": name} if name else {}))
        if status == 202:
            raise RefusedError("Wrong password, or the address waits for the link in its confirmation e-mail.")
        if status not in (200, 201):
            raise RefusedError(body["detail"])
        self._tokens = body

    async def refresh(self) -> None:
        """Exchange the refresh token for new ones. Raises RefusedError."""
        status, body = await self._post("auth/refresh", {"refresh_token": self._tokens["refresh_token"]})
        if status != 200:
            raise RefusedError(body["detail"])
        self._tokens = body

    async def get(self, path: str) -> Json:
        """GET a path; refresh an expired token first. Raises RefusedError."""
        for attempt in (1, 2):
            async with self.http.get(f"{self.api}/{path}", headers=self.headers) as response:
                body: Json = await response.json(content_type=None)
            if response.status == 200:
                return body
            if response.status != 401 or attempt == 2:
                break
            await self.refresh()
        raise RefusedError(body["detail"])

    async def _post(self, path: str, body: Json) -> tuple[int, Json]:
        async with self.http.post(f"{self.api}/{path}", json=body) as response:
            return response.status, await response.json(content_type=None)


class Chat:
    """The conversation on this terminal, and its state across connections."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._cursor: str | None = None
        self._unacknowledged: dict[str, Json] = {}
        self._open: set[str] = set()
        self._shown: str | None = None
        self._last_turn: str | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self.quiet = asyncio.Event()
        """Set while no own message or turn is open."""
        self.quiet.set()

    async def stay_connected(self) -> None:
        """Reconnect until cancelled. Raises RefusedError if the server closes with a code that forbids reconnecting."""
        pause = 0.5
        while True:
            try:
                if await self._connection():
                    pause = 0.5
            except (aiohttp.ClientError, OSError) as error:
                if isinstance(error, aiohttp.WSServerHandshakeError) and error.status == 401:
                    await self._account.refresh()
            say(f"\n(reconnecting in {pause:.1f} s)\n")
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 - jitter, not a secret
            pause = min(pause * 2, 10.0)

    async def _connection(self) -> bool:
        """Serve one connection to its end. Returns True if the server sent `ready`."""
        is_ready = False
        query = {"after": self._cursor} if self._cursor else {}
        async with self._account.http.ws_connect(
            f"{self._account.api}/chat/stream",
            headers=self._account.headers,
            params=query,
            heartbeat=30,
            max_msg_size=0,
        ) as socket:
            try:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        frame = message.json()
                        if frame["type"] == "ready":
                            is_ready = True
                            await self._on_ready(socket, frame)
                        else:
                            self._handle(frame)
            finally:
                self._socket = None
        code = socket.close_code or 1006
        if code == 4001:
            await self._account.refresh()
        elif code >= 4500:
            raise RefusedError(f"The server closed the connection: {code}. See docs/errors.md.")
        return is_ready

    async def _on_ready(self, socket: aiohttp.ClientWebSocketResponse, ready: Json) -> None:
        self._socket = socket
        if not ready["resumed"]:
            self._cursor, self._shown = ready["cursor"], None
            running = ready["turn"]
            if running and running["text"]:
                self._begin_reply(running["turn_id"])
                say(running["text"])
            known = {turn["id"] for turn in ready["queued"]} | ({running["turn_id"]} if running else set())
            for turn_id in self._open - known:
                self._ended(await self._account.get(f"chat/turns/{turn_id}"), missed=True)
        for frame in self._unacknowledged.values():
            await socket.send_json(frame)
        self._update_quiet()

    # -- from the server -----------------------------------------------------------------------------------------

    def _handle(self, frame: Json) -> None:
        if "seq" in frame:
            self._cursor = f"{frame['epoch']}:{frame['seq']}"
        match frame["type"]:
            case "ack":
                if frame["id"] == "retry":
                    self._open.add(frame["turn_id"])
                self._accepted(frame["id"], frame["turn_id"])
            case "error":
                self._unacknowledged.pop(frame.get("id", ""), None)
                say(f"\n! {frame['message']}\n")
            case "turn.queued" | "turn.started":
                self._accepted(frame["client_message_id"], frame["turn_id"])
                if frame["type"] == "turn.started" and frame["turn_id"] not in self._open:
                    say(f"\n(elsewhere) you: {frame['user_message']['content']}\n")
            case "message.delta":
                self._begin_reply(frame["turn_id"])
                say(frame["text"])
            case "tool.called":
                say(f"\n  [{frame['name']}]\n")
            case "turn.completed" | "turn.failed" | "turn.cancelled":
                self._ended(frame["turn"])
        self._update_quiet()

    def _accepted(self, message_id: str, turn_id: str) -> None:
        """Mark a message as accepted, by its ack or by an event that arrived first."""
        if self._unacknowledged.pop(message_id, None):
            self._open.add(turn_id)
            self._last_turn = turn_id

    def _begin_reply(self, turn_id: str) -> None:
        if self._shown != turn_id:
            self._shown = turn_id
            say("\nagent: ")

    def _ended(self, turn: Json, *, missed: bool = False) -> None:
        """`missed`: the turn ended while disconnected; print its whole message."""
        self._open.discard(turn["id"])
        if missed and turn["message"]:
            self._shown = None
            self._begin_reply(turn["id"])
            say(turn["message"]["content"])
        if turn["error"]:
            say(f"\n! {turn['error']['message']}" + (" /retry?" if turn["error"]["retryable"] else ""))
        elif turn["status"] == "completed" and turn["usage"]:
            say(f"\n  ({turn['usage']['total_tokens']} tokens, ${turn['cost']})")
        else:
            say(f"\n  ({turn['status']})")
        say("\n")
        self._shown = None

    def _update_quiet(self) -> None:
        if self._open or self._unacknowledged:
            self.quiet.clear()
        else:
            self.quiet.set()

    # -- from the keyboard ---------------------------------------------------------------------------------------

    async def execute(self, line: str) -> None:
        """Execute one line of input. Raises RefusedError."""
        match line:
            case "/stop":
                await self._send({"type": "cancel", "id": "stop"})
            case "/retry" if self._last_turn:
                await self._send({"type": "retry", "id": "retry", "turn_id": self._last_turn})
            case "/memory":
                for block in (await self._account.get("agent/memory"))["blocks"]:
                    say(f"{block['label']}: {block['value']}\n")
            case "/usage":
                total = (await self._account.get("user/usage"))["total"]
                say(f"{total['messages']} messages, {total['tokens']} tokens, ${total['cost']}\n")
            case _ if line.startswith("/"):
                say(f"{HELP}\n")
            case _:
                message_id = str(uuid.uuid4())
                frame = {"type": "message", "client_message_id": message_id, "content": line}
                self._unacknowledged[message_id] = frame
                await self._send(frame)
        self._update_quiet()

    async def _send(self, frame: Json) -> None:
        """Send now, if connection_task. Unacknowledged messages are sent again at the next `ready`."""
        if self._socket is not None:
            with suppress(ConnectionError):
                await self._socket.send_json(frame)


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


async def typed_lines() -> AsyncIterator[str]:
    """The lines of standard input, read by a thread, so that the event loop is not blocked."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    while (line := await lines.get()) is not None and line != "/quit":
        if line:
            yield line


async def execute_input(chat: Chat) -> None:
    """Execute all lines of input, then wait for open turns."""
    async for line in typed_lines():
        try:
            await chat.execute(line)
        except RefusedError as refusal:
            say(f"! {refusal}\n")
    await chat.quiet.wait()


async def main(options: argparse.Namespace) -> None:
    password = options.password or getpass.getpass("Password: ")
    async with aiohttp.ClientSession() as http:
        account = Account(http, options.url)
        await account.sign_in(options.email, password, options.name)
        say(f"{HELP}\n")
        chat = Chat(account)
        connection_task = asyncio.create_task(chat.stay_connected())
        input_task = asyncio.create_task(execute_input(chat))
        try:
            done, _ = await asyncio.wait({connection_task, input_task}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            connection_task.cancel()
            input_task.cancel()
            await asyncio.gather(connection_task, input_task, return_exceptions=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Talk to your agent from a terminal.")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default: %(default)s)")
    parser.add_argument("--email", required=True, help="your e-mail address; registered if it is new")
    parser.add_argument("--password", default=os.environ.get("CHAT_PASSWORD"), help="or $CHAT_PASSWORD, or a prompt")
    parser.add_argument("--name", help="your name for the agent, at registration")
    try:
        asyncio.run(main(parser.parse_args()))
    except KeyboardInterrupt:
        sys.exit(130)
    except (RefusedError, aiohttp.ClientConnectionError) as refusal:
        sys.exit(f"! {refusal}")
