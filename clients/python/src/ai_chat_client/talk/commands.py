"""What one can type beside messages: `/memory`, `/usage`, …"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ai_chat_client.chat import Chat
from ai_chat_client.errors import ChatError
from ai_chat_client.talk import reports
from ai_chat_client.talk.clean import clean


def command_in(text: str) -> tuple[str, str] | None:
    """The command with its words; None: it is a message, as `/usr/bin is full` is one.

    A beginning that only one command has is completed."""
    found = re.fullmatch(r"(/[a-z-]*)(?:\s+(.*))?", text.rstrip(), re.DOTALL)
    if not found:
        return None
    name, words = found[1], found[2] or ""
    named = [one for one in COMMANDS if one.startswith(name)]
    return (named[0] if len(named) == 1 else name), words


class Commands:
    """`show` prints, `leave` quits."""

    def __init__(self, chat: Chat, show: Callable[[RenderableType], None], leave: Callable[[], None]) -> None:
        self._chat, self._show, self._leave = chat, show, leave
        self._before: str | None = None
        """Where the next page of /history begins."""

    async def execute(self, name: str, words: str) -> None:
        """Raises ChatError."""
        await COMMANDS[name][1](self, words)

    async def stop(self, _: str) -> None:
        if not self._chat.state.reply and not self._chat.state.queue:
            self._show(Text("Nothing runs.", "quiet"))
            return
        await self._chat.cancel()

    async def interrupt(self, words: str) -> None:
        if not words:
            raise _usage("/interrupt and the message that is answered instead")
        self._chat.interrupt(words)

    async def retry(self, _: str) -> None:
        last = next((message for message in reversed(self._chat.state.messages) if message.can_retry), None)
        if last is None:
            self._show(Text("There is nothing to retry.", "quiet"))
            return
        await self._chat.retry(last)

    async def reasoning(self, _: str) -> None:
        last = next((message for message in reversed(self._chat.state.messages) if message.reasoning), None)
        thought = clean(last.reasoning).strip() if last else "There is no reasoning: the model shows none."
        self._show(Text(thought, "quiet"))

    async def memory(self, words: str) -> None:
        if words:
            page = await self._request("agent/memory/archival", query=words)
            self._show(reports.passages(page, f"Nothing in the archive matches “{clean(words)}”."))
        else:
            self._show(reports.memory(await self._request("agent/memory", limit=5)))

    async def usage(self, _: str) -> None:
        self._show(reports.usage(await self._request("user/usage")))

    async def devices(self, _: str) -> None:
        self._show(reports.devices(await self._request("auth/sessions")))

    async def history(self, words: str) -> None:
        """The first call shows the newest messages, each further one those before."""
        if words:
            raise _usage("/history, and again for older messages")
        before = {"before": self._before} if self._before else {}
        page = await self._request("chat/history", limit=reports.PAGE, **before)
        self._before = page["next_cursor"] if page["has_more"] else None
        self._show(reports.history(page, has_more=page["has_more"]))

    async def search(self, words: str) -> None:
        if not words:
            raise _usage("/search and words, or beginnings of words")
        self._show(reports.found(await self._request("chat/history", query=words, limit=reports.PAGE), words))

    async def help(self, _: str) -> None:
        self._show(reports.table([(name, does) for name, (does, _) in COMMANDS.items()], reports.KEYS))

    async def quit(self, _: str) -> None:
        self._leave()

    async def _request(self, path: str, **params: Any) -> Any:
        return await self._chat.request(path, params=params)


def _usage(how: str) -> ChatError:
    return ChatError("invalid_request", f"Type {how}.")


COMMANDS: dict[str, tuple[str, Callable[[Commands, str], Awaitable[None]]]] = {
    "/memory": ("what the agent remembers; with words: search its archive", Commands.memory),
    "/usage": ("tokens and cost, and the budget", Commands.usage),
    "/history": ("older messages; again for still older ones", Commands.history),
    "/search": ("messages with these words", Commands.search),
    "/devices": ("where you are signed in and connected", Commands.devices),
    "/reasoning": ("the reasoning behind the last reply", Commands.reasoning),
    "/stop": ("stop the reply, or the next message that waits", Commands.stop),
    "/interrupt": ("stop everything, and answer this message", Commands.interrupt),
    "/retry": ("repeat what failed or was stopped", Commands.retry),
    "/help": ("this list", Commands.help),
    "/quit": ("leave; a running reply goes on", Commands.quit),
}
"""Name → what it does, and how."""
