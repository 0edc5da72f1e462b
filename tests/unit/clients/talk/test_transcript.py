"""States of a chat, and the entries that they add to the screen."""

from typing import Any

from ai_chat_client.errors import ChatError
from ai_chat_client.history import with_newest
from ai_chat_client.reduce import acknowledged, reduce, reopened
from ai_chat_client.state import ChatMessage, ChatState, with_local, with_local_changed
from ai_chat_client.talk.transcript import NOTHING, Ended, Entry, Live, Note, Said, Thought, Transcript, Used, Wrote
from clients.conformance.world import World


class Scene:
    """A chat whose states a transcript shows."""

    def __init__(self, *before: str) -> None:
        self.world = World()
        for text in before:
            turn = self.world.accept(text)
            self.world.started(turn)
            self.world.completed(turn, f"re: {text}")
        self.transcript = Transcript()
        self.state = ChatState(connection="online")
        page: Any = self.world.history(50, None)
        self.first = self.show(with_newest(self.state, page, {}))

    def show(self, state: ChatState) -> list[Entry]:
        self.state = state
        return self.transcript.advance(state)

    def after(self, *frames: Any) -> list[Entry]:
        """What the frames add, one state after another."""
        return [entry for frame in frames for entry in self.show(reduce(self.state, frame))]

    def send(self, text: str) -> ChatMessage:
        """A message of this device that the server has not accepted."""
        message = ChatMessage("mine", None, "user", text, "sending", "")
        assert self.show(with_local(self.state, message)) == []
        return message

    @property
    def live(self) -> Live:
        return self.transcript.live()


def kinds(entries: list[Entry]) -> list[str]:
    return [type(entry).__name__ for entry in entries]


def test_nothing_is_shown_before_the_history_is_there_and_then_its_last_turns() -> None:
    assert Transcript().advance(ChatState()) == []
    scene = Scene("one", "two", "three")
    assert [entry for entry in scene.first if not isinstance(entry, Ended)] == [
        *(Said("two"), Wrote("re: two"), Said("three"), Wrote("re: three"))
    ]
    assert scene.show(scene.state) == []


def test_an_empty_history_says_what_to_do() -> None:
    assert Scene().first == [Note(NOTHING)]


def test_a_reply_is_final_block_by_block_and_the_rest_is_live() -> None:
    scene = Scene()
    turn = scene.world.accept("Hello", "mine")
    scene.send("Hello")
    assert scene.live.waiting[0].text == "Hello"
    assert scene.after(scene.world.started(turn)) == [Said("Hello")]
    assert scene.live == Live(is_running=True)
    assert scene.after(scene.world.delta(turn, "First.\n\nSec")) == [Wrote("First.")]
    assert scene.live.text == "Sec"
    assert scene.after(scene.world.delta(turn, "ond.")) == []
    assert scene.live.text == "Second."
    rest, end = scene.after(scene.world.completed(turn, "First.\n\nSecond."))
    assert rest == Wrote("Second.")
    assert isinstance(end, Ended)
    assert end.message.cost == "0.0012"
    assert scene.live == Live()


def test_items_of_a_list_continue_it() -> None:
    scene = Scene()
    turn = scene.world.accept("Hello")
    scene.after(scene.world.started(turn))
    assert scene.after(scene.world.delta(turn, "- a\n- b\n- c")) == [Wrote("- a\n- b")]
    assert scene.live.item == 0
    assert scene.after(scene.world.completed(turn, "- a\n- b\n- c"))[0] == Wrote("- c", item=0)


def test_reasoning_and_tools_are_final_when_something_follows() -> None:
    scene, world = Scene(), None
    world = scene.world
    turn = world.accept("I like tea")
    scene.after(world.started(turn))
    assert scene.after(world.reasoning(turn, "A preference.")) == []
    assert scene.live.thought == "A preference."
    assert scene.after(world.tool_called(turn, "1", "memory_insert")) == [Thought("A preference.")]
    assert [tool.status for tool in scene.live.tools] == ["running"]
    (used,) = scene.after(world.tool_returned(turn, "1", "memory_insert"))
    assert isinstance(used, Used)
    assert used.tool.status == "success"
    assert scene.after(world.reasoning(turn, " Thank.")) == []
    assert scene.after(world.delta(turn, "Noted")) == [Thought("Thank.")]
    assert kinds(scene.after(world.completed(turn, "Noted."))) == ["Wrote", "Ended"]


def test_text_before_a_tool_call_stands_before_it() -> None:
    scene = Scene()
    turn = scene.world.accept("Look it up")
    scene.after(scene.world.started(turn), scene.world.delta(turn, "Let me look."))
    entries = scene.after(
        scene.world.tool_called(turn, "1", "search"),
        scene.world.tool_returned(turn, "1", "search"),
        scene.world.completed(turn, "Let me look.\n\nFound."),
    )
    assert kinds(entries) == ["Wrote", "Used", "Wrote", "Ended"]


def test_a_message_of_another_device_says_so() -> None:
    scene = Scene()
    turn = scene.world.accept("From the phone")
    assert scene.after(scene.world.started(turn)) == [Said("From the phone", is_elsewhere=True)]


def test_messages_that_wait_are_live_and_shown_when_their_turn_comes() -> None:
    scene = Scene()
    first, second = scene.world.accept("one"), scene.world.accept("two")
    scene.after(scene.world.started(first))
    assert scene.after(scene.world.queued(second)) == []
    assert [message.text for message in scene.live.waiting] == ["two"]
    entries = scene.after(scene.world.completed(first, "1"), scene.world.started(second))
    assert kinds(entries) == ["Wrote", "Ended", "Said"]
    assert scene.live.waiting == ()


def test_a_stopped_turn_that_is_retried_is_shown_again() -> None:
    scene = Scene()
    turn = scene.world.accept("Hello")
    scene.after(scene.world.started(turn), scene.world.delta(turn, "Hal"), scene.world.cancelled(turn, "Hal"))
    assert scene.show(reopened(scene.state, turn["id"])) == [Said("Hello")]
    assert scene.after(scene.world.retried(turn)) == []
    assert kinds(scene.after(scene.world.completed(turn, "Hallo."))) == ["Wrote", "Ended"]


def test_a_turn_of_the_history_is_shown_again_when_it_is_retried() -> None:
    scene = Scene("old", "older", "oldest")
    turn = next(iter(scene.world.turns.values()))
    assert scene.after(scene.world.retried(turn)) == [Said("old")]
    assert kinds(scene.after(scene.world.completed(turn, "again"))) == ["Wrote", "Ended"]


def test_a_refused_message_says_why_and_is_shown_again_when_it_is_sent_again() -> None:
    scene = Scene()
    error = ChatError("invalid_request", "It is blank.")
    for _ in range(2):
        scene.send("x")
        entries = scene.show(with_local_changed(scene.state, "mine", status="refused", error=error, can_retry=True))
        assert kinds(entries) == ["Said", "Ended"]
    turn = scene.world.accept("x", "mine")
    scene.send("x")
    assert scene.show(acknowledged(scene.state, "mine", turn["id"])) == []
    assert scene.after(scene.world.started(turn)) == [Said("x")]


def test_a_message_that_the_budget_stopped_is_kept_and_says_so() -> None:
    scene = Scene()
    turn = scene.world.accept("Hello")
    said, end = scene.after(scene.world.unsent(turn))
    assert kinds([said]) == ["Said"]
    assert isinstance(end, Ended)
    assert end.message.error is not None
    assert end.message.error.budget is not None


def test_a_reply_goes_on_after_a_cut_where_it_was() -> None:
    scene = Scene()
    turn = scene.world.accept("Hello")
    scene.after(scene.world.started(turn), scene.world.delta(turn, "One.\n\nTw"))
    assert scene.after(scene.world.ready(resumed=False, turn=turn, text="One.\n\nTwo.\n\nThr")) == [Wrote("Two.")]
    assert scene.live.text == "Thr"


def test_a_reply_that_a_crash_shortened_waits_until_it_has_grown_again() -> None:
    scene = Scene()
    turn = scene.world.accept("Hello")
    scene.after(scene.world.started(turn), scene.world.delta(turn, "One.\n\nTwo.\n\nThr"))
    assert scene.after(scene.world.ready(resumed=False, turn=turn, text="One.")) == []
    assert scene.live.text == ""
    assert scene.after(scene.world.delta(turn, "\n\nTwo.\n\nThree.\n\nFo")) == [Wrote("Three.")]


def test_a_reply_that_became_another_one_is_shown_from_its_beginning() -> None:
    scene = Scene()
    turn = scene.world.accept("Hello")
    scene.after(scene.world.started(turn), scene.world.delta(turn, "One.\n\nTw"))
    entries = scene.after(scene.world.completed(turn, "Another."))
    assert entries[:2] == [Note("The reply begins again."), Wrote("Another.")]
    assert kinds(entries[2:]) == ["Ended"]


def test_turns_that_ended_while_there_was_no_connection_are_shown() -> None:
    scene = Scene("one")
    turn = scene.world.accept("meanwhile")
    scene.world.started(turn)
    scene.world.completed(turn, "yes")
    page: Any = scene.world.history(50, None)
    assert kinds(scene.show(with_newest(scene.state, page, {}))) == ["Said", "Wrote", "Ended"]


def test_a_deleted_history_ends_what_was_open() -> None:
    scene = Scene("one")
    turn = scene.world.accept("Hello")
    scene.after(scene.world.started(turn), scene.world.delta(turn, "Wor"))
    assert scene.after(scene.world.event("history.deleted")) == []
    assert scene.live == Live()
    other = scene.world.accept("Again")
    assert scene.after(scene.world.started(other)) == [Said("Again", is_elsewhere=True)]


def test_control_characters_are_gone_before_anything_is_measured() -> None:
    scene = Scene()
    turn = scene.world.accept("a\x1bb")
    assert scene.after(scene.world.started(turn)) == [Said(r"a\x1bb", is_elsewhere=True)]
    scene.after(scene.world.delta(turn, "x\x1b[2J"))
    assert scene.live.text == r"x\x1b[2J"
