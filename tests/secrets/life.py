"""A client that passes all that it sends and receives to the scanner: answers, frames, events, outputs of commands."""

import asyncio
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.secrets.scanner import Scanner

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
_TOKENS = ("access_token", "refresh_token", "ticket", "key")
"""Members of answers whose text values are secrets."""
TIMEOUT = 120.0


@dataclass(slots=True)
class Client:
    """One user's client. `token`: the access token or API key of its requests."""

    http: aiohttp.ClientSession
    url: str
    scanner: Scanner
    token: str | None = None
    seen: dict[str, str] = field(default_factory=dict)
    """The last value of each kind of secret."""

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and decoded body of a call below /api/v1. Learns the tokens in the answer."""
        if (bearer := token or self.token) is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        async with self.http.request(method, f"{self.url}/api/v1{path}", json=body, headers=headers) as response:
            text = await response.text()
        shown = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
        self.scanner.read(f"answer {method} {_ID.sub('{id}', path.partition('?')[0])}", f"{shown}\n\n{text}")
        is_json = response.content_type.endswith("json") and text
        answer = json.loads(text) if is_json else text
        self._learn(answer)
        return response.status, answer

    async def succeed(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The body of a call that must succeed."""
        status, answer = await self.call(method, path, body, **options)
        assert status < 300, (method, path, status, answer)
        return answer

    async def sign_in(self, path: str, body: Mapping[str, str]) -> Any:
        """A call that answers with tokens, which later calls use."""
        answer = await self.succeed("POST", path, body)
        self.token = answer["access_token"]
        return answer

    async def socket(self, message: str, *, first: Mapping[str, Any] | None = None, **options: Any) -> list[Any]:
        """Send a message over a socket, after the frame `first`; the frames until its turn or the socket ends."""
        address = f"{self.url}/api/v1/chat/stream"
        frames: list[Any] = []
        async with self.http.ws_connect(address, **options) as socket:
            if first is not None:
                await socket.send_json(first)
            await socket.send_json({"type": "message", "client_message_id": uuid.uuid4().hex, "content": message})
            while True:
                received = await asyncio.wait_for(socket.receive(), TIMEOUT)
                self.scanner.read("frames", f"{received.data}{received.extra or ''}")
                if received.type is not aiohttp.WSMsgType.TEXT:
                    return frames
                frames.append(json.loads(received.data))
                if frames[-1]["type"] in ("turn.completed", "turn.failed", "turn.cancelled"):
                    return frames

    async def first_event(self, ticket: str) -> str:
        """The first line of an event stream that is opened by a ticket."""
        async with self.http.get(f"{self.url}/api/v1/chat/events", params={"ticket": ticket}) as response:
            line = (await asyncio.wait_for(response.content.readline(), TIMEOUT)).decode()
            self.scanner.read("events", f"{dict(response.headers)} {line}")
            return line

    def _learn(self, answer: Any) -> None:
        for name, value in answer.items() if isinstance(answer, dict) else ():
            if name in _TOKENS and isinstance(value, str):
                kind = "API key" if name == "key" else name.replace("_", " ")
                self.seen[kind] = self.scanner.learn(kind, value)
            else:
                self._learn(value)


async def run_command(scanner: Scanner, env: Mapping[str, str], *arguments: str) -> str:
    """The output of a `chat` command, which the scanner reads whatever the exit code."""
    command = [sys.executable, "-m", "server", *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    scanner.read(f"output chat {' '.join(arguments[:2])}", done.stdout)
    return done.stdout
