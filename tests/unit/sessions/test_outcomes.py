"""What becomes of a turn of which nothing can be read, or whose message the model refuses."""

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.limits import Limits
from server.protocol.shapes import Turn, TurnError, TurnStatus
from tests.fakes.agent import Reply, Tool
from tests.unit.sessions.world import SPOKEN, TOKENS, Process, World
from tests.virtual_time import virtual_time

REMEMBERED = Tool("memory_insert", changed_memory=True)
REFUSED = TurnError(ErrorCode.CONTENT_REFUSED, "The content policy does not allow it.", retryable=False)


async def ended(process: Process, user: str, text: str) -> Turn:
    device = await process.device(user)
    accepted = await process.send(user, text)
    await device.until_end(accepted.turn.id)
    return process.world.turn(accepted.turn.id)


def sent(world: World) -> list[str]:
    """What the last run was sent."""
    return [message.content for message in world.gateway.sent[-1].messages]


@virtual_time
@pytest.mark.parametrize("words", [(), ("\u200b",), (" ", "\n"), ("\ufeff\u2060",)])
@pytest.mark.parametrize("reasoning", [(), ("Hmm.",)])
async def test_a_reply_of_which_nothing_can_be_read_has_failed_and_may_be_retried(
    words: tuple[str, ...], reasoning: tuple[str, ...]
) -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        world.gateway.plan(Reply(words=words, reasoning=reasoning))
        turn = await ended(process, user, "hello?")
        assert (turn.status, turn.message and turn.message.content) == (TurnStatus.FAILED, "" if reasoning else None)
        assert turn.error == TurnError(
            ErrorCode.MODEL_ERROR, "The language model gave an empty answer.", retryable=True
        )
        device = await process.device(user)
        await process.retry(user, turn.id)
        await device.until_end(turn.id, 2)
        assert world.reply_of(turn.id) == SPOKEN.text


@virtual_time
async def test_an_empty_answer_is_charged_and_its_turn_is_not_sent_again() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        world.gateway.plan(Reply(words=()))
        turn = await ended(process, user, "hello?")
        assert (world.charged(user), turn.cost_status) == (TOKENS, "estimated")
        assert world.database.attempts[turn.id, 1].outcome is TurnStatus.COMPLETED
        await ended(process, user, "are you there?")
        assert sent(world) == ["are you there?"]


@virtual_time
async def test_a_tool_that_failed_or_only_looked_is_no_answer() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        world.gateway.plan(Reply(words=(), tools=(Tool("conversation_search"), Tool("memory_insert", status="error"))))
        assert (await ended(process, user, "remember this")).status is TurnStatus.FAILED


@virtual_time
async def test_memory_that_changed_without_a_word_completes_the_turn_with_a_reason() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        world.gateway.plan(Reply(words=("\u200b",), tools=(REMEMBERED,)))
        device = await process.device(user)
        accepted = await process.send(user, "remember this")
        end = await device.until_end(accepted.turn.id)
        assert end["type"] == "turn.completed"
        assert end["turn"]["reason"] == "Your agent changed its memory and said nothing."
        assert end["turn"]["message"]["content"] == ""
        assert end["turn"]["error"] is None


@virtual_time
async def test_memory_that_changed_unseen_counts_too() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        world.gateway.plan(Reply(words=(), tools=(REMEMBERED,), breaks_after=1))
        turn = await ended(process, user, "remember this")
        assert (turn.status, turn.reason) == (
            TurnStatus.COMPLETED,
            "Your agent changed its memory and said nothing.",
        )


@virtual_time
async def test_a_reply_with_words_has_no_reason() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        world.gateway.plan(Reply.of("Noted.", tools=(REMEMBERED,)))
        turn = await ended(process, user, "remember this")
        assert (turn.status, turn.reason) == (TurnStatus.COMPLETED, None)


@virtual_time
async def test_an_agent_that_took_all_its_steps_without_an_answer_says_so() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        world.gateway.plan(
            Reply(words=(), step_limit=50),
            Reply(words=(), tools=(REMEMBERED,), step_limit=50),
            Reply(words=("Well",), step_limit=50),
        )
        first, second, third = [await ended(process, user, str(number)) for number in range(3)]
        assert first.error is not None
        assert (first.status, first.error.message) == (
            TurnStatus.FAILED,
            "Your agent stopped after 50 steps without an answer.",
        )
        assert (second.status, second.reason) == (
            TurnStatus.COMPLETED,
            "Your agent changed its memory, and stopped after 50 steps without an answer.",
        )
        assert (third.status, third.reason) == (TurnStatus.COMPLETED, None)


@virtual_time
async def test_a_message_refused_for_its_content_is_not_sent_again() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        world.gateway.plan(Reply(words=(), error=REFUSED, refused=True))
        turn = await ended(process, user, "something awful")
        assert (turn.status, turn.error) == (TurnStatus.FAILED, REFUSED)
        await ended(process, user, "something nice")
        assert sent(world) == ["something nice"]


@virtual_time
async def test_a_message_that_failed_for_another_reason_is_sent_again() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        failure = TurnError(ErrorCode.MODEL_ERROR, "It failed.", retryable=True)
        world.gateway.plan(Reply(words=("Half",), error=failure))
        await ended(process, user, "first")
        await ended(process, user, "second")
        assert sent(world) == ["first", "Half […] (interrupted)", "second"]


@virtual_time
async def test_a_reminder_that_is_refused_does_not_lock_the_user_out() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        failure = TurnError(ErrorCode.MODEL_ERROR, "It failed.", retryable=True)
        world.gateway.plan(Reply(words=(), error=failure), Reply(words=(), error=REFUSED, refused=True))
        await ended(process, user, "something awful")
        innocent = await ended(process, user, "something nice")
        assert innocent.error is not None
        assert (innocent.error.code, innocent.error.retryable) == (ErrorCode.CONTENT_REFUSED, True)
        device = await process.device(user)
        await process.retry(user, innocent.id)
        await device.until_end(innocent.id, 2)
        assert sent(world) == ["something nice"]
        assert world.turn(innocent.id).status is TurnStatus.COMPLETED


@virtual_time
async def test_reminders_fit_into_their_share_of_the_context() -> None:
    async with World(limits=Limits(reminder_bytes=100)) as world:
        process, user = await world.process(), world.user()
        failure = TurnError(ErrorCode.MODEL_ERROR, "It failed.", retryable=True)
        for text in ("A" * 90, "B" * 90):
            world.gateway.plan(Reply(words=(), error=failure))
            await ended(process, user, text)
        await ended(process, user, "hi")
        naming, reminder, new = sent(world)
        assert ("A" * 40 + "…" in naming, "A" * 41 in naming) == (True, False)
        assert (reminder, new) == ("B" * 90, "hi")
        await ended(process, user, "hi again")
        assert sent(world) == ["hi again"]
