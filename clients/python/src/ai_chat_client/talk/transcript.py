"""What each new state of a chat adds to the screen. What was shown stays, so this decides what is final: an entry is
made once, in the order of the conversation, and what may still change is in `Live`."""

from dataclasses import dataclass, field

from ai_chat_client.state import ChatMessage, ChatState, ChatTurn, ToolCall, is_local, is_open
from ai_chat_client.talk.clean import clean
from ai_chat_client.talk.markdown import finished

EARLIER = 2
"""Turns of the history that are shown at the start."""
NOTHING = "Nothing was said yet. Tell your agent your name, for example: it remembers."


@dataclass(frozen=True, slots=True)
class Said:
    """A message of the user."""

    text: str
    is_elsewhere: bool = False
    """Whether another device sent it."""


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning of the model, up to a tool call or the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class Used:
    """A tool call that has ended."""

    tool: ToolCall


@dataclass(frozen=True, slots=True)
class Wrote:
    """A part of a reply, in Markdown."""

    text: str
    item: int | None = None
    """If it continues the list with which the last part ended: its number in it, 0 without numbers."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a turn ended: its reply, or the user's message if there is none."""

    message: ChatMessage


@dataclass(frozen=True, slots=True)
class Note:
    """A remark of this app."""

    text: str


Entry = Said | Thought | Used | Wrote | Ended | Note


@dataclass(frozen=True, slots=True)
class Live:
    """What may still change: the rest of the running reply, and messages that wait."""

    thought: str = ""
    tools: tuple[ToolCall, ...] = ()
    text: str = ""
    item: int | None = None
    """As in `Wrote`."""
    is_running: bool = False
    waiting: tuple[ChatMessage, ...] = ()


@dataclass(slots=True)
class _Shown:
    """How much of a turn's attempt is final on the screen."""

    key: str
    attempt: int
    thought: int = 0
    """Characters."""
    tools: set[str] = field(default_factory=set)
    text: str = ""
    seen: str = ""
    """The text when it was last looked at."""
    item: int | None = None
    """Of the list that the rest continues."""


class Transcript:
    """Turns end one after the other; the running one is shown to its end before another."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        """Turns whose end was shown, with the number of the attempt."""
        self._old: set[str] | None = None
        """The turns that were there at the start. None: the history is not loaded yet."""
        self._open: _Shown | None = None
        self._state = ChatState()

    def advance(self, state: ChatState) -> list[Entry]:
        """The entries that this state adds."""
        self._state = state
        if self._old is None:
            if state.history.is_loading:
                return []
            return [*self._begin(state), *self._new()]
        return self._new()

    def live(self) -> Live:
        """What the last state has beside them."""
        waiting = tuple(turn.user for turn in self._state.turns if turn.user and _waits(turn))
        turn, shown = self._current(), self._open
        if turn is None or shown is None or turn.reply is None:
            return Live(waiting=waiting)
        reply, text = turn.reply, clean(turn.reply.text)
        return Live(
            thought=clean(reply.reasoning[shown.thought :]),
            tools=tuple(tool for tool in reply.tools if tool.id not in shown.tools),
            text=text[len(shown.text) :],
            item=shown.item,
            is_running=True,
            waiting=waiting,
        )

    def _begin(self, state: ChatState) -> list[Entry]:
        """The last turns of the history."""
        if not state.turns:
            self._old = set()
            return [Note(NOTHING)]
        self._old = {_key(turn) for turn in state.turns}
        ended = [turn for turn in state.turns if _has_ended(turn)]
        for turn in ended:
            self._done[_key(turn)] = turn.attempt
        entries: list[Entry] = []
        for turn in ended[-EARLIER:]:
            entries += [*_said(turn, is_elsewhere=False), *self._step(turn, _Shown(_key(turn), turn.attempt))]
        return entries

    def _new(self) -> list[Entry]:
        entries: list[Entry] = []
        for waiting in self._state.turns:
            if is_local(waiting) and _waits(waiting):
                self._done.pop(_key(waiting), None)  # it was refused, and is sent again
        while (turn := self._current() or self._next()) is not None:
            if self._open is None:
                self._open = _Shown(_key(turn), turn.attempt)
                entries += _said(turn, is_elsewhere=self._is_elsewhere(turn))
            entries += self._step(turn, self._open)
            if not _has_ended(turn):
                break
            self._done[_key(turn)] = turn.attempt
            self._open = None
        return entries

    def _current(self) -> ChatTurn | None:
        """The turn that is being shown. It is gone if the history was deleted meanwhile."""
        if self._open is None:
            return None
        key = self._open.key
        turn = next((turn for turn in reversed(self._state.turns) if _key(turn) == key), None)
        if turn is None:
            self._open = None
        return turn

    def _next(self) -> ChatTurn | None:
        for turn in self._state.turns:
            done = self._done.get(_key(turn))
            if (done is None or done < turn.attempt) and (turn.reply or _has_ended(turn)):
                return turn
        return None

    def _is_elsewhere(self, turn: ChatTurn) -> bool:
        is_own = turn.user is None or turn.user.id != f"{turn.id}:user"
        return not is_own and _key(turn) not in (self._old or ()) and _key(turn) not in self._done

    def _step(self, turn: ChatTurn, shown: _Shown) -> list[Entry]:
        """The entries that a turn adds to what is shown of it."""
        entries: list[Entry] = []
        if reply := turn.reply:
            text, ended = clean(reply.text), _has_ended(turn)
            if _is_new_attempt(turn, shown) or not _continues(text, shown.text, ended=ended):
                entries.append(Note("The reply begins again."))
                shown.thought, shown.tools, shown.text, shown.seen = 0, set(), "", ""
                shown.item = None
            shown.attempt = turn.attempt
            entries += _tools_and_thoughts(reply, text, shown, ended=ended)
            entries += _text(text, shown, ended=ended)
        if _has_ended(turn):
            message = turn.reply or turn.user
            entries += [Ended(message)] if message else []
        return entries


def _tools_and_thoughts(reply: ChatMessage, text: str, shown: _Shown, *, ended: bool) -> list[Entry]:
    """The reasoning ends with a tool call or a word; the text before a tool call is final."""
    entries: list[Entry] = []
    new = [tool for tool in reply.tools if tool.id not in shown.tools]
    if new and len(shown.seen) > len(shown.text):
        entries += _rest(shown.seen, shown)
    has_gone_on = bool(new) or len(text) > len(shown.text) or ended
    if has_gone_on and len(reply.reasoning) > shown.thought:
        if thought := clean(reply.reasoning[shown.thought :]).strip():
            entries.append(Thought(thought))
        shown.thought = len(reply.reasoning)
    for tool in new:
        if tool.status != "running" or ended:
            entries.append(Used(tool))
            shown.tools.add(tool.id)
    return entries


def _text(text: str, shown: _Shown, *, ended: bool) -> list[Entry]:
    if ended:
        return _rest(text, shown)
    shown.seen = text
    final = finished(text[len(shown.text) :], shown.item)
    if not final.length:
        return []
    entry = Wrote(text[len(shown.text) :][: final.length].strip("\n"), shown.item)
    shown.text, shown.item = text[: len(shown.text) + final.length], final.item
    return [entry]


def _rest(text: str, shown: _Shown) -> list[Entry]:
    rest, item = text[len(shown.text) :].strip("\n"), shown.item
    shown.text, shown.item = text, None
    return [Wrote(rest, item)] if rest.strip() else []


def _is_new_attempt(turn: ChatTurn, shown: _Shown) -> bool:
    return turn.attempt != shown.attempt and bool(shown.text or shown.tools or shown.thought)


def _continues(text: str, shown: str, *, ended: bool) -> bool:
    """Whether the text goes on where the shown one ends. After a crash of the server it may be shorter for a moment."""
    return text.startswith(shown) or (not ended and shown.startswith(text))


def _said(turn: ChatTurn, *, is_elsewhere: bool) -> list[Entry]:
    return [Said(clean(turn.user.text), is_elsewhere)] if turn.user else []


def _key(turn: ChatTurn) -> str:
    assert turn.id or turn.user
    return turn.id or (turn.user.id if turn.user else "")


def _waits(turn: ChatTurn) -> bool:
    """Whether its message is not being answered yet."""
    return turn.user is not None and turn.reply is None and not _has_ended(turn)


def _has_ended(turn: ChatTurn) -> bool:
    if is_local(turn):
        return turn.user is not None and turn.user.status == "refused"
    return not is_open(turn)
