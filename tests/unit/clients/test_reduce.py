"""Frames and pages to states, beside what the conformance suite plays."""

from typing import Any

from ai_chat_client.history import with_newest, with_older
from ai_chat_client.reduce import acknowledged, reduce, reopened
from ai_chat_client.state import ChatMessage, ChatState, with_local
from clients.conformance.world import World

STEPS: list[Any] = [
    {"type": "reasoning.delta", "text": "I should "},
    {"type": "tool.called", "call_id": "1", "name": "search", "arguments": '{"q": 1}', "truncated": False},
    {"type": "tool.called", "call_id": "2", "name": "memory_insert", "arguments": "{", "truncated": True},
    {"type": "tool.returned", "call_id": "1", "name": "search", "status": "success"},
    {"type": "reasoning.delta", "text": "note it", "truncated": True},
]


def after(*frames: Any, state: ChatState | None = None) -> ChatState:
    state = state or ChatState()
    for frame in frames:
        state = reduce(state, frame)
    return state


def parts(message: ChatMessage) -> tuple[str, str, list[tuple[str, str]]]:
    return message.text, message.reasoning, [(tool.name, tool.status) for tool in message.tools]


NOTED = ("I should note it", [("search", "success"), ("memory_insert", "running")])


def test_ready_has_the_steps_of_the_running_reply_which_replace_what_was_shown() -> None:
    world = World()
    turn = world.accept("Hello")
    state = after(world.started(turn), world.delta(turn, "lost"), world.reasoning(turn, "lost"))
    ready = world.ready(resumed=False, turn=turn, text="Hi")
    ready["turn"]["steps"] = STEPS
    state = after(ready, world.delta(turn, "!"), state=state)
    assert parts(state.messages[-1]) == ("Hi!", *NOTED)


def test_replies_of_the_history_have_their_steps() -> None:
    world = World()
    turn = world.accept("Hello")
    world.started(turn)
    world.completed(turn, "Hi")
    turn["message"]["steps"] = STEPS
    page: Any = world.history(50, None)
    state = with_newest(ChatState(), page, {})
    assert parts(state.messages[-1]) == ("Hi", *NOTED)


def test_steps_that_were_seen_stay_where_the_history_has_them_cut() -> None:
    world = World()
    turn = world.accept("Hello")
    state = after(world.started(turn), world.reasoning(turn, "I should note it."), world.completed(turn, "Hi"))
    turn["message"]["steps"] = STEPS
    page: Any = world.history(50, None)
    assert with_newest(state, page, {turn.id: turn for turn in state.turns}).messages[-1] is state.messages[-1]


def test_a_history_that_was_read_before_a_retry_does_not_bring_the_old_reply_back() -> None:
    world = World()
    turn = world.accept("Hello")
    asked = after(world.started(turn), world.failed(turn, "model_error", "No.", retryable=True, text="Hm"))
    stale: Any = world.history(50, None)
    state = after(world.retried(turn), world.completed(turn, "Hi!"), state=asked)
    for before in (ChatState(), asked):
        shown = with_newest(state, stale, {turn.id: turn for turn in before.turns}).messages[-1]
        assert (shown.text, shown.status) == ("Hi!", "complete")


def test_a_retry_that_was_accepted_is_open_before_its_first_event() -> None:
    world = World()
    turn = world.accept("Hello")
    failed = world.failed(turn, "model_error", "The model failed.", retryable=True, text="Hm")
    state = reopened(after(world.started(turn), failed), turn["id"])
    assert state.reply is not None
    assert (state.reply.text, state.reply.status) == ("", "streaming")
    assert after(world.retried(turn), world.delta(turn, "Hi"), state=state).messages[-1].text == "Hi"


def test_what_does_not_change_stays_the_same_object() -> None:
    world = World()
    first, second = world.accept("one"), world.accept("two")
    state = after(world.started(first), world.completed(first, "1"), world.started(second))
    later = after(world.delta(second, "2"), state=state)
    assert later.turns[0] is state.turns[0]
    assert later.messages[2] is state.messages[2]
    assert state.messages[3].text == ""


def test_a_message_of_this_client_keeps_its_id_and_its_place_before_those_that_still_wait() -> None:
    world = World()
    state = ChatState()
    for text in ("one", "two"):
        state = with_local(state, ChatMessage(f"id of {text}", None, "user", text, "sending", ""))
    turn = world.accept("one", "id of one")
    state = acknowledged(state, "id of one", turn["id"])
    state = after(world.started(turn), state=state)
    assert [message.id for message in state.messages] == ["id of one", f"{turn['id']}:assistant", "id of two"]
    assert acknowledged(state, "id of one", turn["id"]) is state


def test_an_end_of_an_earlier_attempt_changes_nothing() -> None:
    world = World()
    turn = world.accept("Hello")
    old = world.failed(turn, "model_error", "No.", retryable=True)
    state = after(world.started(turn), old, world.retried(turn), world.delta(turn, "Hi"))
    old["attempt"] = old["turn"]["attempt"] = 1
    assert after(old, state=state) is state


def test_a_page_that_begins_with_a_reply_is_completed_by_the_next() -> None:
    world = World()
    for number in range(2):
        turn = world.accept(f"question {number}")
        world.started(turn)
        world.completed(turn, f"answer {number}")
    newest: Any = world.history(3, None)
    state = with_newest(ChatState(), newest, {})
    assert [message.text for message in state.messages] == ["answer 0", "question 1", "answer 1"]
    older: Any = world.history(3, newest["next_cursor"])
    state = with_older(state, older)
    assert [message.text for message in state.messages] == ["question 0", "answer 0", "question 1", "answer 1"]
    assert not state.history.has_more
