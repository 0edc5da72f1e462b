"""Attribution of model calls by time, confirmed by tokens: every call goes to one turn, and doubts are flagged."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.billing.attribution import (
    AMBIGUOUS,
    FREE,
    MISSING,
    UNASSIGNED,
    UNMATCHED,
    attribute,
)
from server.ports import (
    Findings,
    KnownCall,
    LedgerEntry,
    ModelCall,
    ModelPrice,
    Search,
    SentAttempt,
    SettledAttempt,
    SpendLog,
)
from server.ports.schedule import ALL_LOGGED, CONFIRMED_WITHIN, LONGEST_CALL, UNMATCHED_AFTER
from server.protocol.shapes import TurnStatus, Usage

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
COMPLETED, FAILED, CANCELLED = TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED
_ids = count()


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def call(
    start: float, end: float, prompt: int = 100, completion: int = 10, cost: str = "0.01", **more: object
) -> ModelCall:
    made = ModelCall(
        f"call-{next(_ids)}",
        "0" * 64,
        "gpt-4",
        "success",
        prompt,
        completion,
        0,
        0,
        Decimal(cost),
        None,
        at(start),
        at(end),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def attempt(
    turn_id: str,
    sent: float,
    ended: float | None,
    outcome: TurnStatus | None = COMPLETED,
    *calls: ModelCall,
    **more: object,
) -> SentAttempt:
    """An attempt that reported these calls, if any."""
    usage = None
    if calls:
        prompt, completion = sum(one.prompt_tokens for one in calls), sum(one.completion_tokens for one in calls)
        usage = Usage(prompt, completion, prompt + completion, model_calls=len(calls))
    stopped_at = at(ended) if ended is not None and outcome is CANCELLED else None
    ended_at = None if ended is None else at(ended)
    made = SentAttempt(turn_id, 1, at(sent), ended_at, outcome, usage, is_settled=False, stopped_at=stopped_at)
    return replace(made, **more)  # type: ignore[arg-type]


def found(
    attempts: Sequence[SentAttempt],
    calls: Sequence[ModelCall],
    now: float = 10,
    *,
    known: dict[str, KnownCall] | None = None,
    ahead: float = 0,
    error: float = 1,
) -> Findings:
    search = Search("ann", at(-60), at(now), ("0" * 64,), tuple(attempts), known or {})
    return attribute(search, SpendLog(tuple(calls), ahead, error), 0.0)


def owners(findings: Findings) -> dict[str, str | None]:
    return {entry.call.request_id: entry.turn_id for entry in findings.entries}


# Completed turns


def test_a_turn_that_used_tools_is_settled_with_all_its_calls() -> None:
    calls = [call(0.5, 1, 100, 10), call(1.2, 2, 150, 20)]
    findings = found([attempt("t", 0, 2.5, COMPLETED, *calls)], calls)
    assert findings == Findings(tuple(LedgerEntry(one, "t", 1) for one in calls), (SettledAttempt("t", 1),))


def test_no_call_is_entered_while_another_of_its_turn_is_not_logged() -> None:
    calls = [call(0.5, 1), call(1.2, 2)]
    assert found([attempt("t", 0, 2.5, COMPLETED, *calls)], calls[:1]) == Findings()


def test_consecutive_turns_each_get_their_own_calls() -> None:
    one, two, three = call(0.5, 1), call(2.5, 3), call(4.5, 5)
    attempts = [
        attempt("a", 0, 1.5, COMPLETED, one),
        attempt("b", 2, 3.5, COMPLETED, two),
        attempt("c", 4, 5.5, COMPLETED, three),
    ]
    findings = found(attempts, [three, one, two])
    assert owners(findings) == {one.request_id: "a", two.request_id: "b", three.request_id: "c"}
    assert len(findings.settled) == 3


def test_a_turn_whose_call_is_not_logged_gets_no_equal_call_of_a_neighbour() -> None:
    """If an upstream repeats the ids of its completions, the gateway logs only the first call of each."""
    first, lost, third = call(0.2, 1), call(2.1, 3), call(4.1, 5)
    a, b = attempt("a", 0, 1.5, COMPLETED, first), attempt("b", 2, 3.5, COMPLETED, lost)
    c = attempt("c", 4, 5.5, COMPLETED, third)
    findings = found([a, b, c], [first, third])
    assert owners(findings) == {first.request_id: "a", third.request_id: "c"}
    assert {one.turn_id for one in findings.settled} == {"a", "c"}

    known = {one.request_id: KnownCall(turn, 1, one.cost) for one, turn in ((first, "a"), (third, "c"))}
    a, c = replace(a, is_settled=True), replace(c, is_settled=True)
    findings = found([a, b, c], [first, third], now=CONFIRMED_WITHIN.total_seconds() + 10, known=known)
    assert findings == Findings((), (SettledAttempt("b", 1, MISSING, written_off=True),))


def test_a_turn_gets_no_call_of_a_neighbour_whose_next_call_is_not_logged() -> None:
    lost, first, second = call(2.1, 3), call(4.1, 5), call(5.1, 6, 150, 20)
    attempts = [attempt("b", 2, 3.5, COMPLETED, lost), attempt("c", 4, 6.5, COMPLETED, first, second)]
    assert found(attempts, [first]) == Findings()
    findings = found(attempts, [first, second])
    assert owners(findings) == {first.request_id: "c", second.request_id: "c"}


def test_calls_that_a_completed_turn_did_not_report_are_housekeeping() -> None:
    own, summary, late = call(0.5, 1, 100, 10), call(1.1, 2, 900, 50), call(3.5, 4, 800, 40)
    findings = found([attempt("t", 0, 3, COMPLETED, own)], [own, summary, late])
    assert owners(findings) == {own.request_id: "t", summary.request_id: None, late.request_id: None}
    assert all(entry.flag is None for entry in findings.entries)


def test_failed_calls_of_a_completed_turn_belong_to_it() -> None:
    refused = call(0.5, 0.6, 633, 0, "0", outcome="failure")
    broken = call(0.7, 0.9, 627, 6, "0.02", outcome="failure")
    own = call(1, 2)
    findings = found([attempt("t", 0, 3, COMPLETED, own)], [refused, broken, own])
    assert set(owners(findings).values()) == {"t"}
    assert len(findings.entries) == 3


def test_calls_that_do_not_add_up_are_charged_and_flagged_after_ten_minutes() -> None:
    reported, logged = call(0.5, 1, 100, 10), call(0.5, 1, 101, 10)
    one = attempt("t", 0, 2, COMPLETED, reported)
    assert found([one], [logged], now=2 + UNMATCHED_AFTER.total_seconds()) == Findings()
    findings = found([one], [logged], now=3 + UNMATCHED_AFTER.total_seconds())
    assert findings == Findings((LedgerEntry(logged, "t", 1, UNMATCHED),), (SettledAttempt("t", 1, UNMATCHED),))


def test_an_estimate_that_is_not_confirmed_is_written_off_in_the_end() -> None:
    calls = [call(0.5, 1, 100, 10), call(1.2, 2, 150, 20)]
    one, end = attempt("t", 0, 2.5, COMPLETED, *calls), CONFIRMED_WITHIN.total_seconds()
    assert found([one], calls[:1], now=end) == Findings()
    findings = found([one], calls[:1], now=end + 3)
    assert findings.settled == (SettledAttempt("t", 1, MISSING, written_off=True),)
    assert findings.entries == (LedgerEntry(calls[0], "t", 1, UNMATCHED),)


def test_no_call_of_a_running_turn_is_entered() -> None:
    assert found([attempt("t", 0, None, None)], [call(0.5, 1)]) == Findings()


# Cancelled and failed turns


def test_a_call_that_continued_after_its_turn_was_cancelled_belongs_to_that_turn() -> None:
    stopped, following = call(0.5, 9), call(3.5, 4)
    attempts = [attempt("a", 0, 2, CANCELLED), attempt("b", 3, 4.5, COMPLETED, following)]
    early = found(attempts, [following])
    assert owners(early) == {following.request_id: "b"}
    assert early.settled == (SettledAttempt("b", 1),)

    late = found([attempts[0], replace(attempts[1], is_settled=True)], [stopped, following], now=15)
    assert owners(late)[stopped.request_id] == "a"
    assert late.settled == (SettledAttempt("a", 1),)


def test_a_cancelled_turn_without_calls_is_settled_after_the_longest_call() -> None:
    one, limit = attempt("t", 0, 2, CANCELLED), LONGEST_CALL.total_seconds()
    assert found([one], [], now=2 + limit) == Findings()
    assert found([one], [], now=3 + limit) == Findings((), (SettledAttempt("t", 1),))


def test_a_call_that_ended_after_its_turn_was_stopped_settles_the_turn() -> None:
    last = call(0.5, 2.2)
    slow = attempt("t", 0, 6, CANCELLED, stopped_at=at(2))  # the agent stopped four seconds later
    assert found([slow], [last]) == Findings((LedgerEntry(last, "t", 1),), (SettledAttempt("t", 1),))


def test_a_refused_call_does_not_settle_a_stopped_turn() -> None:
    refused = call(0.5, 2.1, 633, 0, "0", outcome="failure")
    assert found([attempt("t", 0, 2.2, CANCELLED)], [refused]) == Findings((LedgerEntry(refused, "t", 1),))


def test_the_call_of_an_earlier_step_does_not_settle_a_turn_cancelled_in_a_later_step() -> None:
    first = call(0.5, 1)
    findings = found([attempt("t", 0, 4, CANCELLED)], [first])
    assert findings == Findings((LedgerEntry(first, "t", 1),))


def test_a_failed_turn_is_settled_with_its_last_call() -> None:
    calls = [call(start, start + 0.1, 633, 0, "0", outcome="failure") for start in (0.5, 1, 2)]
    findings = found([attempt("t", 0, 2.3, FAILED)], calls)
    assert findings == Findings(tuple(LedgerEntry(one, "t", 1) for one in calls), (SettledAttempt("t", 1),))


def test_a_failed_turn_without_a_last_call_is_settled_after_the_delay_of_logs() -> None:
    early = call(0.5, 1, 633, 0, "0", outcome="failure")
    one = attempt("t", 0, 12, FAILED)
    assert found([one], [early], now=12 + ALL_LOGGED.total_seconds()).settled == ()
    assert found([one], [early], now=13 + ALL_LOGGED.total_seconds()).settled == (SettledAttempt("t", 1),)


def test_all_calls_of_a_failed_turn_belong_to_it_including_housekeeping() -> None:
    summary, broken = call(0.2, 0.5, 900, 50), call(0.6, 1, 100, 3, outcome="failure")
    assert set(owners(found([attempt("t", 0, 1.2, FAILED)], [summary, broken])).values()) == {"t"}


def test_a_completed_turn_without_usage_gets_all_logged_calls() -> None:
    one = call(0.5, 1)
    findings = found([attempt("t", 0, 1.5, COMPLETED)], [one])
    assert findings == Findings((LedgerEntry(one, "t", 1),), (SettledAttempt("t", 1),))


def test_a_call_before_any_attempt_is_charged_to_no_turn_and_flagged() -> None:
    one = call(-5, -4)
    findings = found([attempt("t", 0, None, None)], [one])
    assert findings.entries == (LedgerEntry(one, None, None, UNASSIGNED),)


def test_a_late_call_of_a_settled_turn_is_attributed_to_it() -> None:
    late = call(0.7, 5)
    done = attempt("t", 0, 2, CANCELLED, is_settled=True)
    assert found([done], [late], now=3000) == Findings((LedgerEntry(late, "t", 1),))


# Calls that are in the ledger already


def test_a_known_call_is_entered_again_only_if_its_cost_has_changed() -> None:
    same, changed = call(0.5, 1, cost="0.01"), call(1.2, 2, cost="0.03")
    known = {
        same.request_id: KnownCall("t", 1, Decimal("0.01")),
        changed.request_id: KnownCall(None, None, Decimal("0.02")),
    }
    done = attempt("t", 0, 3, COMPLETED, same, is_settled=True)
    assert found([done], [same, changed], known=known) == Findings((LedgerEntry(changed, None, None),))


def test_a_call_entered_as_housekeeping_moves_to_the_turn_that_reported_it() -> None:
    own = call(2.5, 3)
    known = {own.request_id: KnownCall(None, None, own.cost)}
    attempts = [attempt("a", 0, 1.5, COMPLETED, call(0.5, 1), is_settled=True), attempt("b", 2, 3.5, COMPLETED, own)]
    assert found(attempts, [own], known=known) == Findings((LedgerEntry(own, "b", 1),), (SettledAttempt("b", 1),))


@pytest.mark.parametrize("lost", [0, 1])
def test_a_row_that_the_ledger_lost_is_entered_at_its_turn_again(lost: int) -> None:
    steps, summary = [call(0.5, 1, 100, 10), call(1.2, 2, 150, 20)], call(2.1, 2.5, 900, 50)
    remaining = steps[1 - lost]
    known = {remaining.request_id: KnownCall("t", 1, remaining.cost)}
    done = attempt("t", 0, 3, COMPLETED, *steps, is_settled=True)
    findings = found([done], [*steps, summary], known=known)
    assert owners(findings) == {steps[lost].request_id: "t", summary.request_id: None}
    assert findings.settled == ()


def test_a_call_that_used_tokens_at_a_price_and_cost_nothing_is_flagged() -> None:
    price = ModelPrice(Decimal("0.00003"), Decimal("0.00006"), Decimal("0.00003"))
    free = call(0.5, 1, cost="0", price=price)
    gratis = call(1.5, 2, cost="0", price=ModelPrice(Decimal(0), Decimal(0), Decimal(0)))
    findings = found([attempt("t", 0, 3, COMPLETED, free, gratis)], [free, gratis])
    assert [entry.flag for entry in findings.entries] == [FREE, None]


# Clocks


@pytest.mark.parametrize("ahead", [-3600.0, -2.0, 0.0, 2.0, 3600.0])
def test_calls_are_attributed_although_the_gateways_clock_is_wrong(ahead: float) -> None:
    one, two = call(0.5 + ahead, 1 + ahead), call(2.5 + ahead, 3 + ahead)
    attempts = [attempt("a", 0, 1.5, CANCELLED), attempt("b", 2, 3.5, COMPLETED, two)]
    findings = found(attempts, [one, two], ahead=ahead, error=0.4)
    assert owners(findings) == {one.request_id: "a", two.request_id: "b"}


def test_tokens_decide_if_the_clocks_are_not_exact_enough() -> None:
    stopped, own = call(5.2, 9, 70, 7), call(6.9, 7.5, 100, 10)  # the gateway's clock is 5 s ahead, plus or minus 1 s
    attempts = [attempt("a", 0, 1.9, CANCELLED), attempt("b", 2, 3, COMPLETED, own)]
    findings = found(attempts, [stopped, own], ahead=5, error=1)
    assert owners(findings) == {stopped.request_id: "a", own.request_id: "b"}


def test_a_call_that_may_belong_to_either_of_two_cancelled_turns_is_flagged() -> None:
    one = call(7.3, 8)
    attempts = [attempt("a", 0, 1.9, CANCELLED), attempt("b", 2, 9, CANCELLED)]
    [entry] = found(attempts, [one], ahead=5, error=1).entries
    assert (entry.turn_id, entry.flag) == ("b", AMBIGUOUS)


def test_a_call_that_a_running_turn_may_have_made_is_not_entered() -> None:
    own = call(6.9, 7.5)
    attempts = [attempt("a", 0, 1.9, COMPLETED, call(0.5, 1), is_settled=True), attempt("b", 2, None, None)]
    assert found(attempts, [own], ahead=5, error=1) == Findings()


def test_a_call_of_a_turn_that_is_not_fully_logged_is_not_entered() -> None:
    own, missing = call(6.9, 7.5, 100, 10), call(8, 8.5, 120, 12)
    attempts = [attempt("a", 0, 1.9, CANCELLED), attempt("b", 2, 4, COMPLETED, own, missing)]
    assert found(attempts, [own], ahead=5, error=1) == Findings()
    complete = found(attempts, [own, missing], ahead=5, error=1)
    assert owners(complete) == {own.request_id: "b", missing.request_id: "b"}


# Generated attempts and calls


@dataclass(frozen=True)
class Story:
    """Attempts and their calls; `truth` has the turn of each call, None for housekeeping."""

    attempts: tuple[SentAttempt, ...]
    calls: tuple[ModelCall, ...]
    truth: dict[str, str | None]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    attempts: list[SentAttempt] = []
    calls: list[ModelCall] = []
    truth: dict[str, str | None] = {}
    time = 0.0
    for number in range(draw(st.integers(1, 6))):
        turn_id, sent = f"turn-{number}", time
        outcome = draw(st.sampled_from([COMPLETED, COMPLETED, CANCELLED, FAILED]))
        own: list[ModelCall] = []
        time += 0.4
        for _ in range(draw(st.integers(0 if outcome is not COMPLETED else 1, 3))):
            length = draw(st.sampled_from([0.2, 1.0]))
            own.append(call(time, time + length, draw(st.integers(1, 10_000)), draw(st.integers(1, 500))))
            time += length + 0.1
        reported = list(own)
        if outcome is COMPLETED and draw(st.booleans()):
            summary = call(time, time + 0.3, draw(st.integers(10_001, 20_000)), draw(st.integers(501, 600)))
            calls.append(summary)
            truth[summary.request_id] = None
            time += 0.4
        if outcome is CANCELLED and own and draw(st.booleans()):
            own[-1] = replace(own[-1], ended_at=own[-1].ended_at + timedelta(seconds=draw(st.integers(1, 300))))
        calls += own
        truth |= {one.request_id: turn_id for one in own}
        attempts.append(attempt(turn_id, sent, time, outcome, *(reported if outcome is COMPLETED else ())))
        time += draw(st.sampled_from([0.01, 3.0]))
    return Story(tuple(attempts), tuple(calls), truth)


@given(story=stories(), ahead=st.sampled_from([0.0, 0.0, -40.0, 7.0]), order=st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_every_call_is_attributed_to_its_turn_once_in_any_order_of_logging(
    story: Story, ahead: float, order: object
) -> None:
    """The log grows between searches, in any order; entered calls keep their turns."""
    late = timedelta(seconds=ahead)
    calls = [replace(one, started_at=one.started_at + late, ended_at=one.ended_at + late) for one in story.calls]
    order.shuffle(calls)  # type: ignore[attr-defined]
    attempts, known, entered = list(story.attempts), dict[str, KnownCall](), dict[str, str | None]()
    last = max(one.ended_at for one in attempts if one.ended_at is not None) - NOON
    for logged in range(len(calls) + 1):
        now = last.total_seconds() + (30 if logged < len(calls) else 2000)
        findings = found(attempts, calls[:logged], now, known=known, ahead=ahead, error=0.1)
        for entry in findings.entries:
            assert entry.call.request_id not in known
            known[entry.call.request_id] = KnownCall(entry.turn_id, entry.attempt, entry.call.cost)
            entered[entry.call.request_id] = entry.turn_id
        settled = {one.turn_id for one in findings.settled}
        assert not any(one.flag for one in findings.settled)
        attempts = [replace(one, is_settled=one.is_settled or one.turn_id in settled) for one in attempts]
    assert entered == story.truth
    assert all(one.is_settled for one in attempts)


def test_a_slow_answer_of_the_database_is_not_mistaken_for_a_clock_offset() -> None:
    last = call(1.9, 1.95, 633, 0, "0", outcome="failure")
    attempts = [attempt("a", 0, 2, FAILED), attempt("b", 2.01, 2.3, FAILED)]
    search = Search("ann", at(-60), at(10), ("0" * 64,), tuple(attempts), {})
    findings = attribute(
        search, SpendLog((last,), -0.2, 0.5), -3.0, 4.0
    )  # it read its clock 3 s before its answer arrived
    assert owners(findings) == {last.request_id: "a"}


def test_a_late_date_of_the_gateway_is_not_mistaken_for_a_clock_offset() -> None:
    last = call(1.9, 1.95, 633, 0, "0", outcome="failure")
    own = call(2.2, 2.25)
    attempts = [attempt("a", 0, 2, FAILED), attempt("b", 2.01, 2.3, COMPLETED, own)]
    findings = found(attempts, [last, own], ahead=-0.7, error=0.2)
    assert owners(findings) == {last.request_id: "a", own.request_id: "b"}


def test_tokens_decide_if_a_small_clock_offset_is_doubted() -> None:
    own = call(1.6, 1.9)  # in truth at 2.3: the gateway's clock is 0.7 s behind
    attempts = [attempt("a", 0, 1.9, CANCELLED), attempt("b", 2, 2.9, COMPLETED, own)]
    findings = found(attempts, [own], ahead=-0.7, error=0.2)
    assert owners(findings) == {own.request_id: "b"}
