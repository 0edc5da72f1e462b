"""The scripts. Each plays the server's part, and raises Violation if the client breaks a rule of docs/protocol.md."""

from collections.abc import Awaitable, Callable
from typing import Final

from clients.conformance.run import Run, Violation, ack, error, reply, user
from clients.conformance.world import USAGE, Json

Script = Callable[[Run], Awaitable[None]]
SCENARIOS: Final[dict[str, tuple[str, Script]]] = {}
"""By name: the rule in one sentence, and the script."""


def rule(sentence: str) -> Callable[[Script], Script]:
    def register(script: Script) -> Script:
        SCENARIOS[script.__name__] = (sentence, script)
        return script

    return register


# -- replies --------------------------------------------------------------------------------------------------------


@rule("Deltas are appended; the text of the terminal event replaces them.")
async def terminal_text_is_authoritative(run: Run) -> None:
    link = await run.greeted()
    turn = await run.accepted(link, "Hello")
    await link.send(run.world.started(turn), run.world.delta(turn, "Hi "), run.world.delta(turn, "the"))
    await run.shows(connection="online", messages=[user("Hello"), reply("Hi the", "streaming")])
    await link.send(run.world.completed(turn, "Hi there!"))
    await run.shows(messages=[user("Hello"), reply("Hi there!")], queue=[])


@rule("A frame with first_seq holds several deltas, and its seq is that of the last.")
async def joined_deltas(run: Run) -> None:
    link = await run.greeted()
    turn = await run.accepted(link, "Hello")
    await link.send(run.world.started(turn), run.world.joined(turn, "a", "b", "c"), run.world.delta(turn, "d"))
    await run.shows(messages=[user("Hello"), reply("abcd", "streaming")])


@rule("Unknown event types and unknown fields are ignored.")
async def unknown_types_and_fields(run: Run) -> None:
    link = await run.greeted()
    turn = await run.accepted(link, "Hello")
    surprise: Json = {"from": "the future", "nested": {"list": [1, None]}}
    await link.send(
        run.world.started(turn) | {"surprise": surprise},
        run.world.event("weather.changed", turn_id=turn["id"], attempt=1, surprise=surprise),
        {"type": "notice", "text": "a frame without a number"},
        run.world.delta(turn, "Hi") | {"surprise": surprise},
        run.world.completed(turn, "Hi") | {"surprise": surprise},
    )
    await run.shows(messages=[user("Hello"), reply("Hi")])


@rule("Reasoning and tool calls of the running turn are shown with the status of each call.")
async def reasoning_and_tools(run: Run) -> None:
    link, world = await run.greeted(), run.world
    turn = await run.accepted(link, "Remember me")
    await link.send(world.started(turn), world.reasoning(turn, "I should "), world.reasoning(turn, "note it."))
    await link.send(
        world.tool_called(turn, "1", "memory_insert", '{"value": "Ada"}'), world.tool_called(turn, "2", "search")
    )
    await link.send(world.tool_returned(turn, "1", "memory_insert"), world.delta(turn, "Done."))
    tools = [{"name": "memory_insert", "status": "success"}, {"name": "search", "status": "running"}]
    await run.shows(
        messages=[user("Remember me"), reply("Done.", "streaming", reasoning="I should note it.", tools=tools)]
    )
    await link.send(world.tool_returned(turn, "2", "search", "error"), world.completed(turn, "Done."))
    tools[1]["status"] = "error"
    await run.shows(messages=[user("Remember me"), reply("Done.", reasoning="I should note it.", tools=tools)])


@rule("A turn of another device is shown with its message.")
async def turn_of_another_device(run: Run) -> None:
    link, world = await run.greeted(), run.world
    turn = world.accept("Hello from my phone")
    await link.send(world.started(turn), world.delta(turn, "Hi"), world.completed(turn, "Hi!"))
    await run.shows(messages=[user("Hello from my phone"), reply("Hi!")])


@rule("Waiting turns are shown in their order; the reply belongs below its own message.")
async def queue_order(run: Run) -> None:
    link, world = await run.greeted(), run.world
    first = await run.accepted(link, "one")
    await link.send(world.started(first))
    second, third = await run.accepted(link, "two"), world.accept("three, elsewhere")
    await link.send(world.queued(second, 1), world.queued(third, 2), world.delta(first, "1"))
    await run.shows(
        messages=[user("one"), reply("1", "streaming"), user("two", "queued"), user("three, elsewhere", "queued")],
        queue=[second["id"], third["id"]],
    )
    await link.send(world.completed(first, "1."), world.started(second), world.cancelled(third, ""))
    await run.shows(
        messages=[
            user("one"),
            reply("1."),
            user("two"),
            reply("", "streaming"),
            user("three, elsewhere"),
            reply("", "partial"),
        ],
        queue=[],
    )


@rule("A failed turn keeps its text and shows its error.")
async def failed_turn(run: Run) -> None:
    link, world = await run.greeted(), run.world
    turn = await run.accepted(link, "Hello")
    await link.send(world.started(turn), world.delta(turn, "Hm"))
    await link.send(world.failed(turn, "model_error", "The model failed.", retryable=True, text="Hm"))
    failed = reply("Hm", "failed", error="model_error", can_retry=True)
    await run.shows(messages=[user("Hello"), failed])


@rule("A turn that the budget does not allow is stored as unsent, and can be retried.")
async def unsent_turn(run: Run) -> None:
    link = await run.greeted()
    turn = await run.accepted(link, "Hello")
    await link.send(run.world.unsent(turn))
    await run.shows(messages=[user("Hello", "unsent", error="budget_exceeded", can_retry=True)])


@rule("Charges, budget and the agent's status are followed.")
async def usage_budget_and_agent(run: Run) -> None:
    link, world = await run.greeted(), run.world
    turn = await run.accepted(link, "Hello")
    await link.send(world.started(turn), world.completed(turn, "Hi"))
    await run.shows(messages=[user("Hello"), reply("Hi", cost="0.0012", cost_status="estimated")])
    await link.send(
        world.settled(turn, "0.0013"),
        world.event("budget.warning", spent="8", limit="10", level=80),
        world.event("agent.status", status="provisioning", reason="Its memory begins again."),
    )
    settled = reply("Hi", cost="0.0013", cost_status="settled", tokens=USAGE["total_tokens"])
    await run.shows(messages=[user("Hello"), settled], budget_percent=80, agent="provisioning")


# -- commands -------------------------------------------------------------------------------------------------------


@rule("A message without an answer is sent again after a reconnect, with the same id.")
async def resends_until_acknowledged(run: Run) -> None:
    first = await run.greeted()
    run.client(do="send", text="Hello")
    sent = await first.receive("message")
    await first.close(0)
    second = await run.link(after=run.world.cursor)
    await second.send(run.world.ready(resumed=True))
    again = await second.receive("message")
    if again != sent:
        raise Violation(f"sent {again} after {sent}")
    turn = run.world.accept(sent["content"], sent["client_message_id"])
    await second.send(ack(again, turn), run.world.started(turn), run.world.completed(turn, "Hi"))
    await run.shows(messages=[user("Hello"), reply("Hi")])


@rule("turn.started acknowledges a message as well as its ack, which may come later or be lost.")
async def event_overtakes_the_ack(run: Run) -> None:
    first, world = await run.greeted(), run.world
    run.client(do="send", text="Hello")
    sent = await first.receive("message")
    turn = world.accept(sent["content"], sent["client_message_id"])
    await first.send(world.started(turn))
    await run.shows(messages=[user("Hello"), reply("", "streaming")])
    await first.close(0)
    second = await run.link(after=world.cursor)
    await second.send(world.ready(resumed=True))
    await second.send(world.delta(turn, "Hi"))
    await run.shows(messages=[user("Hello"), reply("Hi", "streaming")])
    run.client(do="cancel")
    await second.receive("cancel")  # and nothing before it: the message was not sent again


@rule("A duplicate ack of an ended turn is followed by its terminal event, which has no number.")
async def duplicate_of_an_ended_turn(run: Run) -> None:
    link, world = await run.greeted(), run.world
    run.client(do="send", text="Hello")
    sent = await link.receive("message")
    turn = world.accept(sent["content"], sent["client_message_id"])
    world.started(turn)
    end = world.completed(turn, "Hi")
    world.seq = 0  # these events came before this connection
    unnumbered = {name: value for name, value in end.items() if name not in ("seq", "epoch", "at")}
    await link.send(ack(sent, turn, duplicate=True), unnumbered)
    await run.shows(messages=[user("Hello"), reply("Hi")])


@rule("A message that is put off is sent again with the same id, after retry_after.")
async def temporary_refusal(run: Run) -> None:
    link, world = await run.greeted(), run.world
    run.client(do="send", text="Hello")
    sent = await link.receive("message")
    await link.send(error(sent, "overloaded", "Too many turns.", retryable=True, retry_after=1))
    again = await link.receive("message")
    if again["client_message_id"] != sent["client_message_id"]:
        raise Violation(f"sent {again} after {sent}")
    turn = world.accept(sent["content"], sent["client_message_id"])
    await link.send(ack(again, turn), world.started(turn), world.completed(turn, "Hi"))
    await run.shows(messages=[user("Hello"), reply("Hi")])


@rule("A message that is refused for good is shown as refused, and not sent again.")
async def final_refusal(run: Run) -> None:
    link = await run.greeted()
    run.client(do="send", text="Hello")
    sent = await link.receive("message")
    await link.send(error(sent, "invalid_request", "No.", retryable=False))
    await run.shows(messages=[user("Hello", "refused", error="invalid_request")])
    await link.close(0)
    second = await run.link(after=run.world.cursor)
    await second.send(run.world.ready(resumed=True))
    await run.accepted(second, "Something else")  # and nothing before it


@rule("A cancelled turn keeps the text so far.")
async def cancel(run: Run) -> None:
    link, world = await run.greeted(), run.world
    turn = await run.accepted(link, "Hello")
    await link.send(world.started(turn), world.delta(turn, "Once upon"))
    await run.shows(messages=[user("Hello"), reply("Once upon", "streaming")])
    run.client(do="cancel")
    frame = await link.receive("cancel")
    if frame.get("turn_id") not in (None, turn["id"]):
        raise Violation(f"cancelled another turn: {frame}")
    await link.send(ack(frame, turn), world.cancelled(turn, "Once upon"))
    await run.shows(messages=[user("Hello"), reply("Once upon", "partial", can_retry=True)])


@rule("A retry is the same turn with its next attempt and a new reply.")
async def retry(run: Run) -> None:
    link, world = await run.greeted(), run.world
    turn = await run.accepted(link, "Hello")
    await link.send(world.started(turn), world.delta(turn, "Hm"))
    await link.send(world.failed(turn, "model_error", "The model failed.", retryable=True, text="Hm"))
    run.client(do="retry", turn_id=turn["id"])
    frame = await link.receive("retry")
    await link.send(ack(frame, turn), world.retried(turn), world.delta(turn, "Hi"))
    await run.shows(messages=[user("Hello"), reply("Hi", "streaming", error=None)])
    await link.send(world.completed(turn, "Hi!"))
    await run.shows(messages=[user("Hello"), reply("Hi!", error=None)])


@rule("An interrupting message asks the server to cancel what runs and waits.")
async def interrupt(run: Run) -> None:
    link, world = await run.greeted(), run.world
    first = await run.accepted(link, "one")
    await link.send(world.started(first), world.delta(first, "1"))
    run.client(do="interrupt", text="two")
    frame = await link.receive("message")
    if frame.get("on_busy") != "interrupt":
        raise Violation(f"sent {frame}, expected on_busy: interrupt")
    second = world.accept(frame["content"], frame["client_message_id"])
    await link.send(ack(frame, second, position=1), world.queued(second), world.cancelled(first, "1"))
    await link.send(world.started(second), world.completed(second, "2"))
    await run.shows(messages=[user("one"), reply("1", "partial"), user("two"), reply("2")])


@rule("A message whose frame would be larger than ready.limits allows goes over REST.")
async def too_large_for_a_frame(run: Run) -> None:
    link, world = await run.greeted(), run.world
    text = "\u8a9e" * 30_000
    run.client(do="send", text=text)
    async with run.post("chat/message") as (body, answer):
        turn = world.accept(body["content"], body["client_message_id"])
        answer.set_result((202, dict(turn)))
    await link.send(world.started(turn), world.completed(turn, "Long"))
    await run.shows(messages=[user(text), reply("Long")])


# -- resuming -------------------------------------------------------------------------------------------------------


@rule("A client resumes after the last event it handled, and continues where it was.")
async def resumes_after_a_lost_connection(run: Run) -> None:
    first, world = await run.greeted(), run.world
    turn = await run.accepted(first, "Hello")
    await first.send(world.started(turn), world.delta(turn, "Once "))
    await run.shows(messages=[user("Hello"), reply("Once ", "streaming")])
    await first.close(0)
    second = await run.link(after=world.cursor)
    await second.send(world.ready(resumed=True), world.delta(turn, "upon "), world.delta(turn, "a time"))
    await run.shows(messages=[user("Hello"), reply("Once upon a time", "streaming")])


@rule("Events that arrive again are ignored.")
async def repeated_events(run: Run) -> None:
    link, world = await run.greeted(), run.world
    turn = await run.accepted(link, "Hello")
    events = [world.started(turn), world.delta(turn, "a"), world.delta(turn, "b")]
    await link.send(*events, *events, events[2], world.delta(turn, "c"))
    await run.shows(messages=[user("Hello"), reply("abc", "streaming")])


@rule("Not resumed: unfinished text is replaced by that of ready, and turns that ended meanwhile are read.")
async def not_resumed(run: Run) -> None:
    first, world = await run.greeted(), run.world
    one = await run.accepted(first, "one")
    await first.send(world.started(one), world.delta(one, "lost te"))
    await run.shows(messages=[user("one"), reply("lost te", "streaming")])
    before = world.cursor
    await first.close(0)
    world.begin_epoch()
    world.completed(one, "lost text")
    two, three = world.accept("two"), world.accept("three")
    for event in (world.started, world.queued):
        event(two if event == world.started else three)
    second = await run.link(after=before)
    await second.send(world.ready(resumed=False, turn=two, text="so far"), world.delta(two, ", so good"))
    await run.shows(
        messages=[
            *(user("one"), reply("lost text"), user("two"), reply("so far, so good", "streaming")),
            user("three", "queued"),
        ],
        queue=[three["id"]],
    )


@rule("A ready in the middle of a connection begins a new epoch: the events after it follow its cursor.")
async def new_epoch_in_mid_connection(run: Run) -> None:
    link, world = await run.greeted(), run.world
    turn = await run.accepted(link, "Hello")
    await link.send(world.started(turn), world.delta(turn, "one "), world.delta(turn, "two "))
    world.begin_epoch()
    await link.send(world.ready(resumed=False, turn=turn, text="one two "), world.delta(turn, "three"))
    await run.shows(messages=[user("Hello"), reply("one two three", "streaming")])
    await link.close(0)
    second = await run.link(after=world.cursor)
    await second.send(world.ready(resumed=True), world.completed(turn, "one two three."))
    await run.shows(messages=[user("Hello"), reply("one two three.")])


@rule("Not resumed: reasoning and tool calls are those of ready, and go on from there.")
async def steps_of_the_running_turn(run: Run) -> None:
    first, world = await run.greeted(), run.world
    turn = await run.accepted(first, "Remember me")
    await first.send(world.started(turn), world.reasoning(turn, "I sh"), world.tool_called(turn, "0", "search"))
    searching = [{"name": "search", "status": "running"}]
    await run.shows(messages=[user("Remember me"), reply("", "streaming", reasoning="I sh", tools=searching)])
    before = world.cursor
    await first.close(0)
    world.tool_returned(turn, "0", "search")
    world.reasoning(turn, "ould note it.")
    world.tool_called(turn, "1", "memory_insert")
    world.begin_epoch()
    second = await run.link(after=before)
    await second.send(world.ready(resumed=False, turn=turn, text="Do"))
    tools = [{"name": "search", "status": "success"}, {"name": "memory_insert", "status": "running"}]
    thought = "I should note it."
    await run.shows(messages=[user("Remember me"), reply("Do", "streaming", reasoning=thought, tools=tools)])
    await second.send(world.tool_returned(turn, "1", "memory_insert"), world.delta(turn, "ne."))
    await second.send(world.completed(turn, "Done."))
    tools[1]["status"] = "success"
    await run.shows(messages=[user("Remember me"), reply("Done.", reasoning=thought, tools=tools)])


@rule("A cursor that the server does not know is dropped.")
async def invalid_cursor(run: Run) -> None:
    first, world = await run.greeted(), run.world
    turn = await run.accepted(first, "Hello")
    await first.send(world.started(turn), world.completed(turn, "Hi"))
    await run.shows(messages=[user("Hello"), reply("Hi")])
    before = world.cursor
    await first.close(0)
    second = await run.link(after=before)
    await second.send({"type": "error", "code": "invalid_cursor", "message": "Not ours.", "retryable": False})
    await second.close(4501)
    world.begin_epoch()
    third = await run.link(after=None)
    await third.send(world.ready(resumed=False))
    await run.shows(connection="online", messages=[user("Hello"), reply("Hi")])


# -- closes and tokens ----------------------------------------------------------------------------------------------


@rule("1012: the server restarts; reconnect and resume.")
async def server_restarts(run: Run) -> None:
    first = await run.greeted()
    await first.close(1012)
    second = await run.link(after=run.world.cursor)
    await second.send(run.world.ready(resumed=True))
    await run.shows(connection="online")


@rule("4001: reconnect with a fresh token.")
async def expired_token(run: Run) -> None:
    first = await run.greeted()
    run.tokens.append(run.new_token())
    await first.close(4001)
    second = await run.link(after=run.world.cursor)
    if not run.expired_asked:
        raise Violation("did not say that its token has expired")
    await second.send(run.world.ready(resumed=True))
    await run.shows(connection="online")


@rule("4500 to 4599: do not reconnect, and say why.")
async def refused_for_good(run: Run) -> None:
    first = await run.greeted()
    await first.send({"type": "error", "code": "account_blocked", "message": "Blocked.", "retryable": False})
    await first.close(4503)
    await run.shows(connection="closed", error="account_blocked")
    await run.no_link()


@rule("A fresh token is sent over the open connection before the old one expires.")
async def renews_the_token(run: Run) -> None:
    run.token_seconds = 12
    run.tokens[:] = [run.new_token()]
    link = await run.greeted()
    run.token_seconds = 3600
    run.tokens.append(run.new_token())
    frame = await link.receive("auth")
    if frame["token"] != run.tokens[-1]:
        raise Violation("sent an old token")
    await link.send(
        {**dict.fromkeys(("id", "turn_id", "message_id", "queue_position")), "type": "ack", "duplicate": False}
    )
    await run.shows(connection="online")


# -- history --------------------------------------------------------------------------------------------------------


@rule("The newest page of the history is shown at first, and older ones on demand, all in order.")
async def pages_of_history(run: Run) -> None:
    world = run.world
    for number in range(4):
        turn = world.accept(f"question {number}")
        world.started(turn)
        world.completed(turn, f"answer {number}")
    run.page_size = 3  # a page ends between a message and its reply
    link = await run.link()
    await link.send(world.ready(resumed=False))
    shown = [message for number in range(4) for message in (user(f"question {number}"), reply(f"answer {number}"))]
    await run.shows(messages=shown[5:], has_more=True)
    run.client(do="older")
    await run.shows(messages=shown[2:], has_more=True)
    run.client(do="older")
    await run.shows(messages=shown, has_more=False)


@rule("The history is asked for with include=steps: replies keep their reasoning and tool calls.")
async def steps_in_the_history(run: Run) -> None:
    world = run.world
    turns = [world.accept("Remember me"), world.accept("Think")]
    world.started(turns[0])
    world.reasoning(turns[0], "I should note it.")
    world.tool_called(turns[0], "1", "memory_insert")
    world.tool_returned(turns[0], "1", "memory_insert", "error")
    world.completed(turns[0], "Sorry.")
    world.started(turns[1])
    world.reasoning(turns[1], "Hm")
    world.cancelled(turns[1], "")
    link = await run.link()
    await link.send(world.ready(resumed=False))
    tools = [{"name": "memory_insert", "status": "error"}]
    sorry, stopped = reply("Sorry.", reasoning="I should note it.", tools=tools), reply("", "partial", reasoning="Hm")
    await run.shows(messages=[user("Remember me"), sorry, user("Think"), stopped])


@rule("history.deleted takes all messages away.")
async def deleted_history(run: Run) -> None:
    link, world = await run.greeted(), run.world
    turn = await run.accepted(link, "Hello")
    await link.send(world.started(turn), world.completed(turn, "Hi"))
    await run.shows(messages=[user("Hello"), reply("Hi")])
    world.turns.clear()
    await link.send(world.event("history.deleted", deleted_at=turn["finished_at"]))
    await run.shows(messages=[], has_more=False)


@rule("Without the right to read the history one can talk, and nothing loads for ever.")
async def history_that_may_not_be_read(run: Run) -> None:
    run.is_history_forbidden = True
    link, world = await run.greeted(), run.world
    turn = await run.accepted(link, "Hello")
    await link.send(world.started(turn), world.completed(turn, "Hi"))
    await run.shows(messages=[user("Hello"), reply("Hi")], is_loading=False)


@rule("A turn that begins and ends while the history is on its way is not lost, and is shown behind it.")
async def history_that_is_late(run: Run) -> None:
    world = run.world
    for number in range(2):
        turn = world.accept(f"question {number}")
        world.started(turn)
        world.completed(turn, f"answer {number}")
    run.page_size = 2
    run.history_answered.clear()
    link = await run.greeted()
    await run.history_read.wait()
    turn = await run.accepted(link, "Hello")
    await link.send(world.started(turn), world.completed(turn, "Hi"))
    await run.shows(messages=[user("Hello"), reply("Hi")])
    run.history_answered.set()
    await run.shows(messages=[user("question 1"), reply("answer 1"), user("Hello"), reply("Hi")], has_more=True)


@rule("A history that was read before a retry does not bring the old reply back.")
async def history_older_than_a_retry(run: Run) -> None:
    world = run.world
    turn = world.accept("Hello")
    world.started(turn)
    world.failed(turn, "model_error", "The model failed.", retryable=True, text="Hm")
    run.history_answered.clear()
    link = await run.greeted()
    await run.history_read.wait()
    run.client(do="retry", turn_id=turn["id"])
    frame = await link.receive("retry")
    await link.send(ack(frame, turn), world.retried(turn), world.completed(turn, "Hi!"))
    await run.shows(messages=[user("Hello"), reply("Hi!")])
    run.history_answered.set()
    await run.shows(messages=[user("Hello"), reply("Hi!")], is_loading=False)


# -- where WebSockets are blocked -----------------------------------------------------------------------------------


@rule("Where WebSockets do not get through: the event stream, and commands over REST.")
async def falls_back_to_the_event_stream(run: Run) -> None:
    run.are_sockets_blocked = True
    world = run.world
    link = await run.link()
    await link.send(world.ready(resumed=False))
    run.client(do="send", text="Hello")
    async with run.post("chat/message") as (body, answer):
        turn = world.accept(body["content"], body["client_message_id"])
        answer.set_result((202, dict(turn)))
    await link.send(world.started(turn), world.delta(turn, "Hi "), world.delta(turn, "th"))
    await run.shows(connection="online", messages=[user("Hello"), reply("Hi th", "streaming")])
    run.client(do="cancel")
    async with run.post("chat/cancel") as (_, answer):
        answer.set_result((200, dict(turn)))
    await link.send(world.cancelled(turn, "Hi th"))
    await run.shows(messages=[user("Hello"), reply("Hi th", "partial")])


@rule("event: reconnect: open the stream again, after the last event.")
async def event_stream_is_renewed(run: Run) -> None:
    run.are_sockets_blocked = True
    world = run.world
    first = await run.link()
    await first.send(world.ready(resumed=False))
    turn = world.accept("Hello")
    await first.send(world.started(turn), world.delta(turn, "Hi "))
    await first.close(1012)
    second = await run.link(after=world.cursor)
    await second.send(world.ready(resumed=True), world.delta(turn, "there"))
    await run.shows(messages=[user("Hello"), reply("Hi there", "streaming")])


@rule("A message that a REST answer refuses is handled like one that a socket refuses.")
async def refusals_over_rest(run: Run) -> None:
    run.are_sockets_blocked = True
    world = run.world
    link = await run.link()
    await link.send(world.ready(resumed=False))
    problem: Json = {
        "type": "/docs",
        "title": "Too many turns",
        "status": 503,
        "code": "overloaded",
        "detail": "Too many turns.",
        "retryable": True,
        "retry_after": 1,
        "request_id": "1",
        "errors": [],
    }
    run.client(do="send", text="Hello")
    async with run.post("chat/message") as (first, answer):
        answer.set_result((503, problem))
    async with run.post("chat/message") as (second, answer):
        if first["client_message_id"] != second["client_message_id"]:
            raise Violation("sent the message again with another id")
        turn = world.accept(second["content"], second["client_message_id"])
        answer.set_result(
            (402, problem | {"status": 402, "code": "budget_exceeded", "turn": world.unsent(turn)["turn"]})
        )
    await run.shows(messages=[user("Hello", "unsent", error="budget_exceeded")])
