"""What is loaded into a state that events change meanwhile."""

from typing import Any

from ai_chat_client.loading import Loading
from ai_chat_client.reader import Missed
from ai_chat_client.reduce import reduce
from ai_chat_client.state import ChatState, HistoryState
from clients.conformance.world import World


class Lab:
    """A state, and a reader before whose answer `meanwhile` happens."""

    def __init__(self, *meanwhile: Any) -> None:
        self.state = ChatState(history=HistoryState(is_loading=False, has_more=True, before="1"))
        self.world = World()
        self._meanwhile = meanwhile
        reader: Any = self
        self.loading = Loading(reader, lambda: self.state, self.change)

    def change(self, state: ChatState) -> None:
        self.state = state

    async def page(self, _: str | None = None) -> Any:
        page = self.world.history(50, None)
        self._happen()
        return page

    async def missed(self, _: Any) -> Missed:
        page, agent = await self.page(), self.world.agent()
        return Missed(page, agent, (), frozenset())  # type: ignore[arg-type]

    def _happen(self) -> None:
        for frame in self._meanwhile:
            self.state = reduce(self.state, frame)


def status(value: str) -> Any:
    return World().event("agent.status", status=value, reason=None)


async def test_the_agents_status_of_an_event_stands_against_an_older_answer() -> None:
    for meanwhile, shown in (((), "active"), ((status("failed"),), "failed")):
        lab = Lab(*meanwhile)
        ready: Any = lab.world.ready(resumed=False)
        await lab.loading.missed(ready)
        assert lab.state.agent.status == shown


async def test_a_page_that_was_asked_for_before_the_history_was_deleted_is_not_shown() -> None:
    lab = Lab(World().event("history.deleted", deleted_at="now"))
    turn = lab.world.accept("Hello")
    lab.world.started(turn)
    lab.world.completed(turn, "Hi")
    assert await lab.loading.older() is False
    assert lab.state.messages == ()
    lab = Lab()
    lab.world.turns[turn["id"]] = turn
    await lab.loading.older()
    assert [message.text for message in lab.state.messages] == ["Hello", "Hi"]
