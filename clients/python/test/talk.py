"""Talks to a running server through lines that are cut again and again, on two devices at once, and compares what they
show with the history. CHAT_URL, CHAT_TOKEN, and the number of messages; exits with 1 if anything differs."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from urllib.parse import urlsplit

from ai_chat_client import Chat, ChatState

SHORTEST, LONGEST = 3, 25
"""Pieces of data that a line carries before it is cut."""


class CutLines:
    """A proxy before the server, whose lines do not last."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self.cuts = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            upstream, to_server = await asyncio.open_connection(self._host, self._port)
            upward = asyncio.create_task(self._copy(reader, to_server, None))
            try:
                await self._copy(upstream, writer, random.randint(SHORTEST, LONGEST))  # noqa: S311 - no secret
            finally:
                upward.cancel()
                for side in (writer, to_server):
                    side.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pieces: int | None) -> None:
        while piece := await reader.read(2**16):
            writer.write(piece)
            await writer.drain()
            if pieces is not None:
                pieces -= 1
                if pieces == 0:
                    self.cuts += 1
                    return


async def until(chat: Chat, condition: Callable[[ChatState], bool]) -> None:
    async for state in chat.states():
        if condition(state):
            return


def shows(count: int, state: ChatState) -> bool:
    return state.connection == "online" and not state.reply and len(state.messages) >= count


async def history(url: str, token: str) -> list[str]:
    """All texts, oldest first, as the server stores them."""
    texts: list[str] = []
    async with Chat(url, token) as chat:
        before: dict[str, str] = {}
        while True:
            page = await chat.request("chat/history", params={"limit": 100, **before})
            texts[:0] = [message["content"] for message in reversed(page["data"])]
            if not page["has_more"]:
                return texts
            before = {"before": page["next_cursor"]}


async def main(url: str, token: str, count: int) -> int:
    lines = CutLines(url)
    is_equal = True
    async with AsyncExitStack() as stack:
        cut = await stack.enter_async_context(lines.serving())
        devices = {
            "cut socket": await stack.enter_async_context(Chat(cut, token, transport="websocket")),
            "cut event stream": await stack.enter_async_context(Chat(cut, token, transport="sse")),
        }
        chats = list(devices.values())
        for number in range(count):
            chat = chats[number % 2]
            turn_id = await chat.send(f"message {number}: é€😀 {'x' * number}")
            print(f"accepted {number}", flush=True)
            await chat.ended(turn_id)
        stored = await history(url, token)
        for name, chat in devices.items():
            await until(chat, partial(shows, min(len(stored), 50)))
            while chat.state.history.has_more:
                await chat.load_older()
            shown = [message.text for message in chat.state.messages]
            outcome = "equal" if shown == stored else "DIFFERENT"
            print(f"{name}: {len(shown)} messages shown, {len(stored)} stored, {outcome}", flush=True)
            if shown != stored:
                print(shown, stored)
                is_equal = False
    print(f"{lines.cuts} cuts")
    return 0 if is_equal and len(stored) > count and lines.cuts else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(os.environ["CHAT_URL"], os.environ["CHAT_TOKEN"], int(sys.argv[1]))))
