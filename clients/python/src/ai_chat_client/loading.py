"""Loads what events do not tell into the state: older messages, and what was missed while there was no connection."""

from collections.abc import Callable
from dataclasses import replace

from ai_chat_client.errors import ChatError
from ai_chat_client.history import Turns, with_missed, with_older
from ai_chat_client.reader import Reader
from ai_chat_client.reduce import end_of_turn, reduce
from ai_chat_client.state import AgentState, ChatState, is_open
from ai_chat_client.wire import ReadyFrame


class Loading:
    """`shown` and `change`: the state that is shown, and how another one is."""

    def __init__(self, reader: Reader, shown: Callable[[], ChatState], change: Callable[[ChatState], None]) -> None:
        self._reader, self._shown, self._change = reader, shown, change

    async def older(self) -> bool:
        """The next page of the history. Returns whether there are more."""
        history = self._shown().history
        if history.is_loading or not history.has_more:
            return history.has_more
        self._show_loading(True)
        try:
            page = await self._reader.page(history.before)
        except ChatError:
            self._show_loading(False)
        else:
            if self._shown().history.before == history.before:  # else the history was deleted, or loaded anew
                self._change(with_older(self._shown(), page))
        return self._shown().history.has_more

    async def missed(self, ready: ReadyFrame) -> None:
        """Turns that ended without a connection, the newest messages, and the agent's status."""
        running = ready["turn"]
        live = {turn["id"] for turn in ready["queued"]} | ({running["turn_id"]} if running else set())
        old: Turns = {turn.id: turn for turn in self._shown().turns if turn.id and turn.id not in live}
        agent = self._shown().agent
        try:
            missed = await self._reader.missed([turn.id for turn in old.values() if turn.id and is_open(turn)])
        except ChatError:
            self._show_loading(False)
            return
        state = self._shown()
        for turn in missed.turns:
            if end := end_of_turn(turn):
                state = reduce(state, end)
        state = with_missed(state, missed, old)
        if self._shown().agent is agent:  # no event came meanwhile
            state = replace(state, agent=AgentState(missed.agent["status"], missed.agent["reason"]))
        self._change(state)

    def _show_loading(self, is_loading: bool) -> None:
        state = self._shown()
        self._change(replace(state, history=replace(state.history, is_loading=is_loading)))
