"""Attributes model calls to turns: the gateway logs the user, key, time and tokens of a call, but not its turn. Pure.

A user's attempts run one after another, so a call belongs to the last attempt that was sent before it. The usage that
the agent's service reported of a completed attempt confirms this. Calls that it does not contain are the agent's
housekeeping (summaries of long conversations); they are charged to the user but to no turn. What cannot be confirmed is
flagged.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from math import comb
from typing import Final

from server.ports import Findings, LedgerEntry, ModelCall, Search, SentAttempt, SettledAttempt, SpendLog
from server.ports.schedule import (
    ALL_LOGGED,
    CLOCK_DOUBT,
    CLOCK_TOLERANCE,
    CONFIRMED_WITHIN,
    LAST_CALL_BEFORE_FAILURE,
    LAST_CALL_BEFORE_STOP,
    LONGEST_CALL,
    UNMATCHED_AFTER,
)
from server.protocol.shapes import TurnStatus, Usage

_MOST_CHOICES: Final = 50_000

UNMATCHED: Final = "unmatched"
"""The calls do not add up to the usage that the agent's service reported."""
MISSING: Final = "missing"
"""Calls that the agent's service reported are not in the log."""
AMBIGUOUS: Final = "ambiguous"
"""The call may also belong to the previous attempt: the clocks are not exact enough to decide."""
UNASSIGNED: Final = "unassigned"
"""No attempt was sent before this call."""
FREE: Final = "free"
"""The call used tokens of a model with a price, and was charged nothing."""

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Clock:
    """Converts the gateway's time to the database's. A difference smaller than its error counts as zero."""

    ahead: timedelta
    error: timedelta

    @classmethod
    def of(cls, log: SpendLog, database_ahead: float, database_error: float) -> "_Clock":
        ahead, error = log.clock - database_ahead, log.clock_error + database_error
        if abs(ahead) <= error:
            return cls(timedelta(0), CLOCK_TOLERANCE)
        if abs(ahead) - error <= CLOCK_DOUBT.total_seconds():  # may be zero: tokens decide where possible
            return cls(timedelta(0), timedelta(seconds=abs(ahead) + error))
        return cls(timedelta(seconds=ahead), timedelta(seconds=error))

    def began(self, call: ModelCall) -> datetime:
        return call.started_at - self.ahead

    def ended(self, call: ModelCall) -> datetime:
        return call.ended_at - self.ahead


def attribute(search: Search, log: SpendLog, database_ahead: float, database_error: float = 0.0) -> Findings:
    """The ledger entries for the calls in the log. `database_ahead`: how far the database's clock is ahead of this
    process's, in seconds, plus or minus `database_error`."""
    return _Attribution(search, log.calls, _Clock.of(log, database_ahead, database_error)).findings()


class _Attribution:
    def __init__(self, search: Search, calls: Iterable[ModelCall], clock: _Clock) -> None:
        self._search = search
        self._clock = clock
        self._entries: list[LedgerEntry] = []
        self._settled: list[SettledAttempt] = []
        self._new: dict[Key | None, list[ModelCall]] = defaultdict(list)
        self._logged: dict[Key | None, list[ModelCall]] = defaultdict(list)
        self._housekeeping: list[ModelCall] = []  # attributed to housekeeping by an earlier search
        self._entered: dict[Key | None, list[ModelCall]] = defaultdict(list)
        for call in sorted(calls, key=lambda call: (call.started_at, call.request_id)):
            if clock.began(call) < search.since:
                continue  # belongs to an attempt that is not searched for now
            attempt = self._last_sent_before(call)
            key = attempt.key if attempt else None
            self._logged[key].append(call)
            if (known := search.known.get(call.request_id)) is None:
                self._new[key].append(call)
                continue
            if known.turn_id is None and call.outcome == "success":
                self._housekeeping.append(call)
            if known.turn_id is not None and known.attempt is not None:
                self._entered[known.turn_id, known.attempt].append(call)
            if known.cost != call.cost:
                self._entries.append(LedgerEntry(call, known.turn_id, known.attempt))

    def findings(self) -> Findings:
        ended = [(attempt, attempt.ended_at) for attempt in self._search.attempts if attempt.ended_at is not None]
        for attempt in self._search.attempts:
            if attempt.ended_at is None:
                self._exclude([*self._new[attempt.key], *self._possible_calls(attempt)])
        self._attribute_by_tokens([(one, one.usage, ended_at) for one, ended_at in ended if one.usage is not None])
        for attempt, ended_at in ended:
            if attempt.outcome is TurnStatus.COMPLETED and attempt.usage is not None:
                self._attribute_rest(attempt)
            else:
                self._attribute_all(attempt, ended_at)
        for call in self._new[None]:
            self._enter(call, None, UNASSIGNED)
        return Findings(tuple(self._entries), tuple(self._settled))

    def _last_sent_before(self, call: ModelCall) -> SentAttempt | None:
        began = self._clock.began(call)
        before = [one for one in self._search.attempts if one.sent_at <= began]
        return before[-1] if before else None

    # Completed attempts: their calls are identified by the reported tokens.

    def _attribute_by_tokens(self, ended: Sequence[tuple[SentAttempt, Usage, datetime]]) -> None:
        """Attribute the reported calls to completed attempts: first each attempt's own calls, then calls that its
        neighbours do not need."""
        unmatched = []
        for attempt, usage, ended_at in ended:
            if attempt.outcome is not TurnStatus.COMPLETED:
                continue
            if attempt.is_settled:
                self._restore(attempt, usage)
            elif not self._match_own(attempt, usage):
                unmatched.append((attempt, usage, ended_at))
        for attempt, usage, ended_at in unmatched:
            self._match(attempt, usage, ended_at, [one for one, *_ in unmatched])

    def _match_own(self, attempt: SentAttempt, usage: Usage) -> bool:
        """Attribute the calls since the attempt was sent, if they add up to its usage. Returns True if they do.

        If an upstream repeats its ids, the gateway logs only the first call of each: an attempt whose own call is not
        logged must not get an equal call of a neighbour."""
        own = _adding_up(self._own_calls(attempt), usage)
        if own is not None:
            self._enter_all(attempt, own)
        return own is not None

    def _match(self, attempt: SentAttempt, usage: Usage, ended_at: datetime, unmatched: Sequence[SentAttempt]) -> None:
        waited = self._search.now - ended_at
        made, possible = self._own_calls(attempt), self._possible_calls(attempt, unmatched)
        own = _adding_up([*made, *possible, *self._possible_housekeeping(attempt)], usage)
        if own is not None:
            self._enter_all(attempt, own)
        elif waited > CONFIRMED_WITHIN or (waited > UNMATCHED_AFTER and len(made) >= usage.model_calls):
            missing = len(made) < usage.model_calls
            for call in made:
                self._enter(call, attempt, UNMATCHED)
            self._settle(attempt, MISSING if missing else UNMATCHED, written_off=missing)
            self._exclude(made)
        else:  # until all its calls are logged, only its estimate is charged
            self._exclude([*self._new[attempt.key], *possible])

    def _enter_all(self, attempt: SentAttempt, own: Sequence[ModelCall]) -> None:
        for call in own:
            self._enter(call, attempt)
        self._settle(attempt)
        self._exclude(own)

    def _restore(self, attempt: SentAttempt, usage: Usage) -> None:
        """Enter again a row that the ledger has lost: the tokens missing at its settled attempt identify it."""
        entered = [call for call in self._entered[attempt.key] if call.outcome == "success"]
        lost = _adding_up([*self._own_calls(attempt), *self._possible_housekeeping(attempt)], usage, entered)
        for call in lost or ():
            self._enter(call, attempt)
        self._exclude(lost or ())

    def _own_calls(self, attempt: SentAttempt) -> list[ModelCall]:
        return [call for call in self._new[attempt.key] if call.outcome == "success"]

    def _possible_calls(self, attempt: SentAttempt, unmatched: Sequence[SentAttempt] = ()) -> list[ModelCall]:
        """Calls of the neighbours that may be this attempt's, as far as the clocks are exact. Excludes neighbours that
        are `unmatched` because not all of their own calls are logged yet."""
        waiting = {one.key for one in unmatched if self._is_incomplete(one)}
        return [
            call
            for key, calls in self._new.items()
            for call in calls
            if key != attempt.key and key not in waiting and call.outcome == "success" and self._may_be(call, attempt)
        ]

    def _is_incomplete(self, attempt: SentAttempt) -> bool:
        if attempt.usage is None or attempt.ended_at is None or self._search.now - attempt.ended_at > ALL_LOGGED:
            return False
        return len(self._own_calls(attempt)) < attempt.usage.model_calls

    def _possible_housekeeping(self, attempt: SentAttempt) -> list[ModelCall]:
        """Calls that may be this attempt's, and were attributed to housekeeping before its end was stored."""
        return [call for call in self._housekeeping if self._may_be(call, attempt)]

    def _may_be(self, call: ModelCall, attempt: SentAttempt) -> bool:
        index = self._search.attempts.index(attempt)
        following = self._search.attempts[index + 1].sent_at if index + 1 < len(self._search.attempts) else None
        began, error = self._clock.began(call), self._clock.error
        return attempt.sent_at - error <= began and (following is None or began <= following + error)

    def _attribute_rest(self, attempt: SentAttempt) -> None:
        """Attribute the calls that a completed attempt did not report: failed ones to it, others to housekeeping."""
        for call in self._new.pop(attempt.key, ()):
            self._enter(call, attempt if call.outcome == "failure" else None)

    # Other attempts: all their calls, as they are logged.

    def _attribute_all(self, attempt: SentAttempt, ended_at: datetime) -> None:
        for call in self._new.pop(attempt.key, ()):
            self._enter(call, attempt, AMBIGUOUS if self._may_be_the_previous(call, attempt) else None)
        if not attempt.is_settled and self._is_fully_logged(attempt, ended_at):
            self._settle(attempt)

    def _may_be_the_previous(self, call: ModelCall, attempt: SentAttempt) -> bool:
        """Whether the call may belong to the attempt before this one."""
        index = self._search.attempts.index(attempt)
        before = self._search.attempts[index - 1] if index else None
        if before is None or not self._clock.ahead:
            return False
        return before.ended_at is None or self._clock.began(call) - self._clock.error <= before.ended_at

    def _is_fully_logged(self, attempt: SentAttempt, ended_at: datetime) -> bool:
        """Whether all calls of the attempt are logged: its last one is, or the time for it to be logged has passed.

        The last call of a stopped attempt is a charged one that ended after the stop (the agent retries refused calls).
        A run that failed by itself ended with its last call."""
        calls = self._logged[attempt.key]
        if attempt.stopped_at is not None:
            last, timeout = attempt.stopped_at - LAST_CALL_BEFORE_STOP, LONGEST_CALL
            calls = [call for call in calls if call.is_charged]
        else:
            last, timeout = ended_at - LAST_CALL_BEFORE_FAILURE, ALL_LOGGED
        logged = any(self._clock.ended(call) >= last - self._clock.error for call in calls)
        return logged or self._search.now - ended_at > timeout

    # Findings

    def _enter(self, call: ModelCall, attempt: SentAttempt | None, flag: str | None = None) -> None:
        turn_id, number = attempt.key if attempt else (None, None)
        self._entries.append(LedgerEntry(call, turn_id, number, FREE if _is_free(call) else flag))

    def _exclude(self, excluded: Sequence[ModelCall]) -> None:
        """Remove the calls from what the remaining attempts can get."""
        for calls in (*self._new.values(), *self._logged.values(), self._housekeeping):
            calls[:] = [call for call in calls if call not in excluded]

    def _settle(self, attempt: SentAttempt, flag: str | None = None, *, written_off: bool = False) -> None:
        self._settled.append(SettledAttempt(attempt.turn_id, attempt.attempt, flag, written_off))


def _adding_up(
    calls: Sequence[ModelCall], usage: Usage, entered: Sequence[ModelCall] = ()
) -> tuple[ModelCall, ...] | None:
    """A choice of calls that, together with those entered before, has the reported number and sums of tokens. None if
    there is none."""
    number = usage.model_calls - len(entered)
    if not 0 < number <= len(calls) or comb(len(calls), number) > _MOST_CHOICES:
        return None
    for chosen in combinations(calls, number):
        if (
            sum(call.prompt_tokens for call in (*chosen, *entered)) == usage.prompt_tokens
            and sum(call.completion_tokens for call in (*chosen, *entered)) == usage.completion_tokens
        ):
            return chosen
    return None


def _is_free(call: ModelCall) -> bool:
    """Whether a call of a model with a price was charged nothing."""
    priced = call.price is None or call.price.prompt > 0 or call.price.completion > 0
    return call.outcome == "success" and call.cost == 0 and call.total_tokens > 0 and priced
