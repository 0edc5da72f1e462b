"""A chat whose states a test decides, and a conversation with it on a terminal that a test can read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input

from ai_chat_client.errors import ChatError
from ai_chat_client.history import with_newest
from ai_chat_client.reduce import reduce
from ai_chat_client.state import ChatMessage, ChatState, with_local
from ai_chat_client.talk.conversation import Conversation
from clients.conformance.world import World
from tests.unit.clients.talk.terminal import SECONDS, FakeTerminal


@dataclass(slots=True)
class ScriptedChat:
    """Records what it is asked for."""

    world: World = field(default_factory=World)
    state: ChatState = field(default_factory=lambda: ChatState(connection="online"))
    sent: list[str] = field(default_factory=list)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    """By path."""
    watchers: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        page: Any = self.world.history(50, None)
        self.state = with_newest(self.state, page, {})

    def after(self, *frames: Any) -> None:
        for frame in frames:
            self.show(reduce(self.state, frame))

    def show(self, state: ChatState) -> None:
        self.state = state
        for watcher in self.watchers:
            watcher()

    async def states(self) -> AsyncIterator[ChatState]:
        changes: asyncio.Queue[ChatState] = asyncio.Queue()
        self.watchers.append(lambda: changes.put_nowait(self.state))
        yield self.state
        while True:
            yield await changes.get()

    def send(self, text: str) -> None:
        self.sent.append(text)
        message = ChatMessage(f"mine-{len(self.sent)}", None, "user", text, "sending", "")
        self.show(with_local(self.state, message))

    def interrupt(self, text: str) -> None:
        self.asked.append(("interrupt", text))

    async def cancel(self) -> None:
        self.asked.append(("cancel", None))

    async def retry(self, message: ChatMessage) -> None:
        self.asked.append(("retry", message.text))

    async def request(self, path: str, **options: Any) -> Any:
        self.asked.append((path, options.get("params")))
        answer = self.answers.get(path)
        if answer is None:
            raise ChatError("letta_unavailable", "The agents cannot be reached.", retryable=True)
        return answer

    def offline(self, message: str) -> None:
        self.show(replace(self.state, connection="offline", error=ChatError("network", message, retryable=True)))


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation that runs."""

    chat: ScriptedChat
    terminal: FakeTerminal
    keys: PipeInput
    running: asyncio.Task[None]

    def type(self, text: str) -> None:
        self.keys.send_text(text)

    async def sent(self, *texts: str) -> None:
        await self.terminal.until(lambda: self.chat.sent == list(texts), f"the sending of {texts}")

    async def asked(self, *asked: tuple[str, Any]) -> None:
        await self.terminal.until(lambda: self.chat.asked == list(asked), f"a request of {asked}")

    async def end(self) -> str:
        """The whole text, once it has ended by itself."""
        async with asyncio.timeout(SECONDS):
            await self.running
        return self.terminal.text()


@asynccontextmanager
async def talking(chat: ScriptedChat | None = None, columns: int = 80, rows: int = 24) -> AsyncIterator[Talk]:
    """A conversation, whose screen is there."""
    chat, terminal = chat or ScriptedChat(), FakeTerminal(columns, rows)
    with create_pipe_input() as keys:
        conversation = Conversation(
            chat,  # type: ignore[arg-type]
            "ada@example.com at example.com",
            (keys, terminal.output()),
            InMemoryHistory(),
        )
        running = asyncio.create_task(conversation.run())
        try:
            await terminal.shows("Nothing", "● ada")
            yield Talk(chat, terminal, keys, running)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
