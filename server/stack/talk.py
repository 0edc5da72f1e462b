"""`chat talk`: a first conversation from the terminal, over the same WebSocket as any other client.

Knows the server only by its protocol."""

import asyncio
import sys
import threading
import uuid
from typing import Any

import aiohttp
import click

from server.stack.service import StackError

ENDED = frozenset({"turn.completed", "turn.failed", "turn.cancelled", "turn.unsent"})
API = "/api/v1"


async def talk(url: str, email: str, password: str) -> None:
    """Sign in (or register), then send each line typed and show the reply as it comes. Raises StackError."""
    try:
        async with aiohttp.ClientSession(base_url=url) as http:
            token = await _sign_in(http, email, password)
            headers = {"Authorization": f"Bearer {token}"}
            async with http.ws_connect(f"{API}/chat/stream", headers=headers, heartbeat=30) as socket:
                await _converse(socket, _typed_lines())
    except aiohttp.ClientConnectionError:
        raise StackError(f"no server answers at {url}; is `chat up` running?") from None


async def _sign_in(http: aiohttp.ClientSession, email: str, password: str) -> str:
    """An access token of this user, who is registered if unknown."""
    credentials = {"email": email, "password": password}
    async with http.post(f"{API}/auth/login", json=credentials) as response:
        if response.status == 200:
            return str((await response.json())["access_token"])
    async with http.post(f"{API}/auth/register", json=credentials) as response:
        answer = await response.json()
    if response.status == 201:
        click.secho(f"Registered {email}.", dim=True)
        return str(answer["access_token"])
    raise StackError(answer.get("detail") or answer.get("status") or f"sign-in failed with {response.status}")


async def _converse(socket: aiohttp.ClientWebSocketResponse, lines: "asyncio.Queue[str | None]") -> None:
    ready = await socket.receive_json()
    if ready["type"] != "ready":
        raise StackError(ready.get("message", "the server refused the connection"))
    click.secho("Connected. Say something; Ctrl-D ends.", dim=True)
    while True:
        click.secho("you   ", fg="cyan", nl=False)
        line = await lines.get()
        if line is None:
            click.echo()
            return
        if not line.strip():
            continue
        await socket.send_json({"type": "message", "client_message_id": str(uuid.uuid4()), "content": line})
        await _show_reply(socket)


async def _show_reply(socket: aiohttp.ClientWebSocketResponse) -> None:
    click.secho("agent ", fg="green", nl=False)
    turn: str | None = None
    async for message in socket:
        if message.type is not aiohttp.WSMsgType.TEXT:
            break
        event = message.json()
        if event["type"] == "ack":
            turn = event["turn_id"]
        elif event["type"] == "error":
            click.secho(event["message"], fg="red")
            return
        elif turn is not None and event.get("turn_id") == turn and _shown(event):
            return
    raise StackError("the server closed the connection")


def _shown(event: dict[str, Any]) -> bool:
    """Show one event of our turn; True when it was the last one."""
    if event["type"] == "message.delta":
        click.echo(event["text"], nl=False)
    elif event["type"] == "tool.called":
        click.secho(f"[{event['name']}] ", dim=True, nl=False)
    elif event["type"] in ENDED:
        error = (event.get("turn") or {}).get("error")
        click.secho(f" {error['message']}" if error else "", fg="red")
        return True
    return False


def _typed_lines() -> "asyncio.Queue[str | None]":
    """Lines from standard input, None at its end. A daemon thread reads them: nothing can interrupt a read."""
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.rstrip("\n"))
        loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    return lines
