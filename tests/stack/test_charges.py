"""The charge of every outcome of a turn, on the real services: in LiteLLM's log, our tables, and the events to users.

The scenes run once, each with a user of its own, all at the same time; each test checks one turn of them, and that the
user's whole book agrees to the last digit.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import combinations
from typing import Final

import aiohttp
import pytest

from tests.stack.bookkeeper import Book, Call, shown
from tests.stack.charges import (
    LONG_MESSAGES,
    Charged,
    Scene,
    answers,
    budgets,
    cancellations,
    failures,
    silences,
    summaries,
    unasked,
    user_without_agent,
)
from tests.stack.chat_client import register
from tests.stack.patches import applied_patches
from tests.stack.running_stack import RunningStack

Play = Callable[[Scene], Awaitable[None]]
ALL_SCENES: Final[tuple[Play, ...]] = (unasked, answers, cancellations, failures, budgets, silences, summaries)
SCENES: Final = tuple(play for play in ALL_SCENES if play is not cancellations or "stop" in applied_patches())
PROMPT, CACHED, COMPLETION = Decimal("0.00003"), Decimal("0.000015"), Decimal("0.00006")
FLOATS_ROUND: Final = Decimal("1e-12")
"""LiteLLM multiplies binary floats."""
NOTHING: Final = Decimal(0)


@dataclass(slots=True)
class Played:
    """A scene whose turns have ended and are settled."""

    user_id: str
    book: Book
    charges: dict[str, Charged]


@dataclass(slots=True)
class AllPlayed:
    """All scenes; a failed scene fails only the tests that check it."""

    played: dict[Play, Played | BaseException] = field(default_factory=dict)

    def scene(self, play: Play) -> Played:
        if play not in SCENES:
            pytest.skip("Letta as released does not stop its model")
        played = self.played[play]
        if isinstance(played, BaseException):
            raise played
        assert played.book.wrong == []
        return played

    def charged(self, play: Play, name: str) -> Charged:
        return self.scene(play).charges[name]


@pytest.fixture(scope="module")
async def scenes(stack: RunningStack) -> AllPlayed:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=180)) as http:
        played = await asyncio.gather(*(_play(stack, http, play) for play in SCENES), return_exceptions=True)
    return AllPlayed(dict(zip(SCENES, played, strict=True)))


async def _play(stack: RunningStack, http: aiohttp.ClientSession, play: Play) -> Played:
    newcomer = user_without_agent(stack, http) if play is unasked else nullcontext(await register(http, stack.url))
    async with newcomer as user, user.connect() as device:
        scene = Scene(stack, http, user, device)
        await play(scene)
        book = await scene.keeper.settled(user, scene.unsettled)
        await scene.is_told(book)
        return Played(user.id, book, {name: await scene.charged(name, book) for name in scene.turns})


# -- answered ----------------------------------------------------------------------------------------------------------


def test_a_turn_is_charged_its_one_call_and_the_settlement_is_published(scenes: AllPlayed) -> None:
    done = scenes.charged(answers, "done")
    assert (done.turn["status"], done.statuses, done.asked) == ("completed", ["success"], 1)
    assert done.cost == done.calls[0].cost > 0
    assert [(Decimal(event["cost"]), event["cost_status"]) for event in done.published] == [
        (shown(done.cost), "settled")
    ]
    assert done.published[0]["usage"] == done.turn["usage"]


def test_a_turn_that_uses_a_tool_is_charged_both_its_calls(scenes: AllPlayed) -> None:
    tools = scenes.charged(answers, "tools")
    assert (tools.turn["status"], tools.statuses, tools.asked) == ("completed", ["success"] * 2, 2)
    assert all(call.cost > 0 for call in tools.calls)
    assert tools.turn["usage"]["model_calls"] == 2


def test_cached_and_reasoning_tokens_are_charged_at_their_prices(scenes: AllPlayed) -> None:
    [cached], [reasoned] = scenes.charged(answers, "done again").calls, scenes.charged(answers, "thinking").calls
    assert cached.cached_tokens > 0
    assert reasoned.reasoning_tokens > 0
    for call in (cached, reasoned):
        assert abs(call.cost - _at_list_price(call)) < FLOATS_ROUND
    assert cached.cost < (cached.prompt_tokens * PROMPT) + cached.completion_tokens * COMPLETION


def _at_list_price(call: Call) -> Decimal:
    whole = call.prompt_tokens - call.cached_tokens
    return whole * PROMPT + call.cached_tokens * CACHED + call.completion_tokens * COMPLETION


def test_a_reply_without_readable_text_has_failed_and_is_charged(scenes: AllPlayed) -> None:
    alone = scenes.charged(answers, "thinking alone")
    assert (alone.turn["status"], alone.statuses, alone.asked) == ("failed", ["success"], 1)
    assert alone.cost == alone.calls[0].cost > 0
    assert alone.turn["usage"]["reasoning_tokens"] == alone.calls[0].reasoning_tokens > 0


def test_a_tool_call_without_a_reply_is_charged_both_its_calls(scenes: AllPlayed) -> None:
    quiet = scenes.charged(answers, "remembering")
    assert (quiet.turn["status"], quiet.statuses) == ("completed", ["success"] * 2)
    assert quiet.cost == sum(call.cost for call in quiet.calls)


def test_an_error_that_letta_retries_is_logged_and_costs_nothing(scenes: AllPlayed) -> None:
    recovered = scenes.charged(answers, "recovered")
    assert (recovered.turn["status"], recovered.statuses) == ("completed", ["failure", "success"])
    assert (recovered.calls[0].cost, recovered.cost) == (NOTHING, recovered.calls[1].cost)
    assert recovered.turn["usage"]["model_calls"] == 1


def test_a_message_sent_twice_is_charged_once(scenes: AllPlayed) -> None:
    once = scenes.charged(answers, "sent twice")
    assert (once.statuses, once.asked) == (["success"], 1)


# -- cancelled ---------------------------------------------------------------------------------------------------------


def test_a_turn_cancelled_before_it_was_sent_costs_nothing(scenes: AllPlayed) -> None:
    cancelled = scenes.charged(unasked, "before the model")
    assert (cancelled.turn["status"], cancelled.turn["cost_status"]) == ("cancelled", "settled")
    assert (cancelled.cost, cancelled.calls, cancelled.asked) == (NOTHING, [], 0)


@pytest.mark.parametrize(("name", "words"), [("in mid-reply", 3), ("interrupted", 1)])
def test_a_stopped_turn_is_charged_the_words_that_the_model_wrote_until_then(
    scenes: AllPlayed, name: str, words: int
) -> None:
    stopped = scenes.charged(cancellations, name)
    assert (stopped.turn["status"], stopped.turn["cost_status"]) == ("cancelled", "settled")
    assert (stopped.statuses, stopped.asked, stopped.written) == (["success"], 1, words)
    assert stopped.cost == stopped.calls[0].cost > 0
    assert stopped.calls[0].completion_tokens == 2 * words


def test_a_turn_stopped_before_the_first_word_is_settled_after_the_first_word(scenes: AllPlayed) -> None:
    """LiteLLM waits for it, and detects only then that its client has left."""
    stopped = scenes.charged(cancellations, "early")
    assert (stopped.turn["status"], stopped.turn["cost_status"]) == ("cancelled", "settled")
    assert (stopped.statuses, stopped.asked) == (["success"], 1)
    assert stopped.calls[0].completion_tokens <= 2 * 9


def test_a_queued_turn_that_is_cancelled_costs_nothing(scenes: AllPlayed) -> None:
    waiting = scenes.charged(cancellations, "waiting")
    assert (waiting.turn["status"], waiting.cost, waiting.turn["cost_status"]) == ("cancelled", None, None)
    assert (waiting.calls, waiting.asked, waiting.published) == ([], 0, [])


def test_an_interrupting_message_is_charged_only_its_own_call(scenes: AllPlayed) -> None:
    urgent = scenes.charged(cancellations, "interrupting")
    assert (urgent.turn["status"], urgent.statuses, urgent.asked) == ("completed", ["success"], 1)
    assert urgent.calls[0].completion_tokens == 1


def test_a_turn_whose_call_is_not_logged_yet_stays_unsettled(scenes: AllPlayed) -> None:
    hanging = scenes.charged(silences, "hanging")
    assert (hanging.turn["status"], hanging.cost, hanging.turn["cost_status"]) == ("cancelled", None, "estimated")
    assert (hanging.calls, hanging.asked) == ([], 1)


# -- failed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "calls"),
    [("server error", "model_error", 2), ("bad request", "model_error", 1), ("model too busy", "rate_limited", 2)],
)
def test_a_turn_that_the_model_refuses_costs_nothing(scenes: AllPlayed, name: str, code: str, calls: int) -> None:
    """For each of Letta's calls: three, unless one of its connections fails."""
    failed = scenes.charged(failures, name)
    assert (failed.turn["status"], failed.turn["error"]["code"]) == ("failed", code)
    assert failed.statuses == ["failure"] * failed.asked
    assert failed.asked >= calls
    assert (failed.cost, failed.turn["cost_status"], failed.turn["usage"]) == (NOTHING, "settled", None)


def test_a_reply_that_the_model_breaks_off_is_charged_to_that_point(scenes: AllPlayed) -> None:
    broken = scenes.charged(failures, "broken off")
    assert (broken.turn["status"], broken.statuses) == ("failed", ["failure"])
    assert broken.cost == broken.calls[0].cost > 0
    assert abs(broken.cost - _at_list_price(broken.calls[0])) < FLOATS_ROUND
    assert broken.turn["usage"]["completion_tokens"] == 6


def test_only_the_second_attempt_of_a_refused_turn_is_charged(scenes: AllPlayed) -> None:
    again = scenes.charged(failures, "tried again")
    assert (again.turn["status"], again.turn["attempt"], again.statuses) == ("completed", 2, ["failure", "success"])
    assert again.cost == again.calls[1].cost > 0


def test_a_message_beyond_the_budget_is_not_sent_and_costs_nothing(scenes: AllPlayed) -> None:
    unsent = scenes.charged(budgets, "no budget")
    assert (unsent.turn["status"], unsent.turn["error"]["code"]) == ("unsent", "budget_exceeded")
    assert (unsent.asked, unsent.cost) == (0, NOTHING)
    assert all((call.status, call.cost, call.total_tokens) == ("failure", NOTHING, 0) for call in unsent.calls)


def test_a_budget_that_ends_in_mid_turn_leaves_its_first_step_charged_and_a_retry_adds_up(scenes: AllPlayed) -> None:
    twice = scenes.charged(budgets, "out of budget")
    book = scenes.scene(budgets).book
    assert (twice.turn["status"], twice.turn["attempt"], twice.asked) == ("completed", 2, 3)
    assert twice.statuses == ["success", "failure", "success", "success"]
    assert twice.cost == sum(call.cost for call in twice.calls)
    assert [call.cost > 0 for call in twice.calls] == [True, False, True, True]
    outcomes = [one["outcome"] for one in book.attempts if one["turn_id"] == twice.turn["id"]]
    assert outcomes == ["failed", "completed"]
    assert [m["role"] for m in book.messages if m["turn_id"] == twice.turn["id"]] == ["user", "assistant"]


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_a_summary_is_charged_to_the_user_and_to_no_turn(scenes: AllPlayed) -> None:
    played = scenes.scene(summaries)
    background = played.book.of_turn(None)
    assert len(background) >= 1
    spent = shown(sum((call.cost for call in background), NOTHING))
    assert Decimal(played.book.usage["range"]["background"]["cost"]) == spent > 0
    for number in range(LONG_MESSAGES):
        long = played.charges[f"long {number}"]
        assert (long.turn["status"], long.statuses, long.asked) == ("completed", ["success"], 1)
        assert long.turn["usage"]["prompt_tokens"] == long.calls[0].prompt_tokens


def test_concurrent_users_are_charged_only_their_own_calls(scenes: AllPlayed) -> None:
    books = [scenes.scene(play).book for play in SCENES]
    for one, other in combinations(books, 2):
        assert not one.calls.keys() & other.calls.keys()
    for play in SCENES:
        for charged in scenes.scene(play).charges.values():
            if charged.turn["cost_status"] != "estimated":
                assert charged.asked == sum(call.total_tokens > 0 for call in charged.calls)


def test_every_settlement_is_published_with_its_final_figures(scenes: AllPlayed) -> None:
    for play in SCENES:
        for name, charged in scenes.scene(play).charges.items():
            if charged.cost is None or not charged.calls:
                continue
            assert charged.published, name
            assert Decimal(charged.published[-1]["cost"]) == shown(charged.cost), name
            assert charged.published[-1]["usage"] == charged.turn["usage"], name


def test_no_ledger_entry_has_a_flag(scenes: AllPlayed) -> None:
    assert [scenes.scene(play).book.flagged for play in SCENES] == [[]] * len(SCENES)
