"""The conversation on a screen: joins the client, the transcript, the commands and the terminal."""

from decimal import Decimal

from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from rich.console import RenderableType
from rich.text import Text

from ai_chat_client.chat import Chat
from ai_chat_client.errors import ChatError
from ai_chat_client.state import ChatState, is_local
from ai_chat_client.talk.clean import clean, one_line
from ai_chat_client.talk.commands import COMMANDS, Commands, command_in
from ai_chat_client.talk.paint import Paper, price, sentence
from ai_chat_client.talk.screen import Screen, SteadyOutput
from ai_chat_client.talk.transcript import Note, Transcript

WELCOME = "Type a message. /help lists the commands; Ctrl-C stops a reply, Ctrl-D quits."
AGENT = {
    "provisioning": "your agent is being made; it takes some seconds",
    "failed": "your agent could not be made; an operator is needed",
    "blocked": "this account is closed",
    "deleting": "this account is being deleted",
}
DEMO = "The demo model answers, a small program that understands little. For a real one: OPENAI_API_KEY=sk-… chat up"


class Conversation:
    """`title`: whom one talks as, and where. Use once: `await Conversation(…).run()`."""

    def __init__(
        self,
        chat: Chat,
        title: str,
        terminal: tuple[Input, SteadyOutput],
        history: History,
        *,
        is_demo: bool = False,
    ) -> None:
        self._chat, self._title = chat, one_line(title)
        self._paper, self._transcript = Paper(), Transcript()
        self._commands = Commands(chat, self._show, self._quit)
        self._screen = Screen(self, terminal, history, {name: does for name, (does, _) in COMMANDS.items()})
        self._is_demo, self._is_stopping = is_demo, False
        self._old: frozenset[str] | None = None
        """The messages that were there at the start. None: they are not loaded yet."""
        self._drawn: tuple[object, int, list[str]] | None = None

    async def run(self) -> None:
        """Until the person quits. Raises ChatError if the connection is closed for good."""
        await self._screen.run(self._begin)
        unsent = sum(
            1 for turn in self._chat.state.turns if is_local(turn) and turn.user and turn.user.status == "sending"
        )
        if unsent:
            self._say(f"Not sent yet: {unsent} {'message' if unsent == 1 else 'messages'}. The next run sends them.")
        elif self._chat.state.reply or self._chat.state.queue:
            self._say("The reply goes on without you, and is here when you come back.")

    def live(self, width: int) -> list[str]:
        """Part of Actor."""
        key = self._chat.state
        if self._drawn is None or self._drawn[0] is not key or self._drawn[1] != width:
            self._drawn = (key, width, self._paper.live(self._transcript.live(), width))
        return self._drawn[2]

    def status(self) -> tuple[str, bool]:
        """Part of Actor."""
        state = self._chat.state
        if state.connection != "online":
            why = f": {one_line(state.error.message)}" if state.error else ""
            return f"○ {'connecting' if state.connection == 'connecting' else 'offline, trying again'}{why}", False
        parts = [self._title]
        if state.reply:
            parts.append("stopping" if self._is_stopping else "Ctrl-C stops the reply")
        elif state.agent.status in AGENT:
            parts.append(AGENT[state.agent.status])
        elif spent := sum(
            (Decimal(m.cost) for m in state.messages if m.cost and m.id not in (self._old or ())), Decimal()
        ):
            parts.append(f"{price(str(spent))} since you came")
        if state.queue:
            parts.append(f"{len(state.queue)} waiting")
        if state.budget:
            parts.append(f"{price(state.budget.spent)} of {price(state.budget.limit)} spent")
        return f"● {' · '.join(parts)}", True

    def enter(self, text: str) -> bool:
        """Part of Actor."""
        text = text.encode("utf-8", "replace").decode()  # a half of a surrogate pair is no text
        if not text.strip():
            return False
        command = command_in(text)
        if command is None:
            self._chat.send(text)
            return False
        name, words = command
        self._show(Text(f"❯ {clean(text)}", "quiet"))
        if name not in COMMANDS:
            self._say(f"There is no command {name}; /help lists them. To send it as a message, begin with a space.")
            return True
        self._screen.background(self._execute(name, words))
        return False

    def interrupt(self) -> bool:
        """Part of Actor: stop what runs or waits; the second time, or if there is nothing, quit."""
        state = self._chat.state
        if self._is_stopping or not (state.reply or state.queue):
            return False
        self._is_stopping = True
        self._screen.background(self._execute("/stop", ""))
        self._screen.refresh()
        return True

    def _begin(self) -> None:
        self._screen.background(self._follow())

    async def _follow(self) -> None:
        """Show each state."""
        self._say(f"{WELCOME}\n{DEMO}" if self._is_demo else WELCOME)
        async for state in self._chat.states():
            self._update(state)
            if state.connection == "closed":
                self._screen.exit(state.error)
                return

    def _update(self, state: ChatState) -> None:
        if not state.reply and not state.queue:
            self._is_stopping = False
        if self._old is None and not state.history.is_loading:
            self._old = frozenset(message.id for message in state.messages if message.cost)
        entries = self._transcript.advance(state)
        self._drawn = None
        self._screen.print(self._paper.final(entries, self._screen.width))
        self._screen.refresh()

    async def _execute(self, name: str, words: str) -> None:
        try:
            await self._commands.execute(name, words)
        except ChatError as error:
            self._is_stopping = False
            self._say(f"✗ {sentence(error)}")

    def _say(self, text: str) -> None:
        self._screen.print(self._paper.final([Note(text)], self._screen.width))

    def _show(self, what: RenderableType) -> None:
        self._screen.print("\n" + self._paper.draw(what, self._screen.width))

    def _quit(self) -> None:
        self._screen.exit()
