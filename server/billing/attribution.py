"""Whose a model call was: the gateway logs user, key, time and tokens of it, but neither turn nor run. Pure.

A user's attempts are made one after another, so a call belongs to the last one that was sent before it. What the
agent's service reported of a completed attempt confirms that; what it does not contain is the agent's own housekeeping
(it summarises long conversations), which is the user's but no turn's. What cannot be confirmed is flagged.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from math import comb
from typing import Final

from server.ports import Findings, LedgerEntry, ModelCall, Search, SentAttempt, Settled, SpendLog
from server.ports.schedule import (
    ALL_LOGGED,
    AT_THE_END,
    CLOCKS_AGREE,
    CONFIRMED_WITHIN,
    DOUBTED,
    LONGEST_CALL,
    QUIET,
    SOON_AFTER,
)
from server.protocol.shapes import TurnStatus, Usage

_MOST_CHOICES: Final = 50_000

UNMATCHED: Final = "unmatched"
"""The calls do not add up to what the agent's service reported."""
MISSING: Final = "missing"
"""Calls that the agent's service reported are not in the log."""
AMBIGUOUS: Final = "ambiguous"
"""The call may also be the attempt's before: the clocks cannot tell."""
UNASSIGNED: Final = "unassigned"
"""No attempt was sent before this call."""
FREE: Final = "free"
"""A call that used tokens at a price, and was charged nothing."""

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Clock:
    """The gateway's time as the database's. Clocks that agree as far as can be measured are taken to agree."""

    ahead: timedelta
    error: timedelta

    @classmethod
    def of(cls, log: SpendLog, database_ahead: float, database_error: float) -> "_Clock":
        ahead, error = log.clock - database_ahead, log.clock_error + database_error
        if abs(ahead) <= error:
            return cls(timedelta(0), CLOCKS_AGREE)
        if abs(ahead) - error <= DOUBTED.total_seconds():  # tokens decide where they can
            return cls(timedelta(0), timedelta(seconds=abs(ahead) + error))
        return cls(timedelta(seconds=ahead), timedelta(seconds=error))

    def began(self, call: ModelCall) -> datetime:
        return call.started_at - self.ahead

    def ended(self, call: ModelCall) -> datetime:
        return call.ended_at - self.ahead


def attribute(search: Search, log: SpendLog, database_ahead: float, database_error: float = 0.0) -> Findings:
    """What to enter of the calls in the log. `database_ahead`: how far the database's clock is ahead of this process's,
    in seconds, give or take `database_error`."""
    return _Attribution(search, log.calls, _Clock.of(log, database_ahead, database_error)).findings()


class _Attribution:
    def __init__(self, search: Search, calls: Iterable[ModelCall], clock: _Clock) -> None:
        self._search = search
        self._clock = clock
        self._entries: list[LedgerEntry] = []
        self._settled: list[Settled] = []
        self._new: dict[Key | None, list[ModelCall]] = defaultdict(list)
        self._logged: dict[Key | None, list[ModelCall]] = defaultdict(list)
        self._loose: list[ModelCall] = []  # taken for housekeeping before
        self._entered: dict[Key | None, list[ModelCall]] = defaultdict(list)
        for call in sorted(calls, key=lambda call: (call.started_at, call.request_id)):
            if clock.began(call) < search.since:
                continue  # of attempts that are not looked for now
            attempt = self._last_sent_before(call)
            key = attempt.key if attempt else None
            self._logged[key].append(call)
            if (known := search.known.get(call.request_id)) is None:
                self._new[key].append(call)
                continue
            if known.turn_id is None and call.outcome == "success":
                self._loose.append(call)
            if known.turn_id is not None and known.attempt is not None:
                self._entered[known.turn_id, known.attempt].append(call)
            if known.cost != call.cost:
                self._entries.append(LedgerEntry(call, known.turn_id, known.attempt))

    def findings(self) -> Findings:
        ended = [(attempt, attempt.ended_at) for attempt in self._search.attempts if attempt.ended_at is not None]
        for attempt in self._search.attempts:
            if attempt.ended_at is None:
                self._put_aside([*self._new[attempt.key], *self._possible(attempt)])
        self._assign_by_tokens([(one, one.usage, ended_at) for one, ended_at in ended if one.usage is not None])
        for attempt, ended_at in ended:
            if attempt.outcome is TurnStatus.COMPLETED and attempt.usage is not None:
                self._take_rest(attempt)
            else:
                self._take_all(attempt, ended_at)
        for call in self._new[None]:
            self._enter(call, None, UNASSIGNED)
        return Findings(tuple(self._entries), tuple(self._settled))

    def _last_sent_before(self, call: ModelCall) -> SentAttempt | None:
        began = self._clock.began(call)
        before = [one for one in self._search.attempts if one.sent_at <= began]
        return before[-1] if before else None

    # -- completed: the calls are known by their tokens --------------------------------------------------------------

    def _assign_by_tokens(self, ended: Sequence[tuple[SentAttempt, Usage, datetime]]) -> None:
        """To completed attempts what they reported: first everyone's own calls, and then what a neighbour has left."""
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
        """Whether the calls since the attempt was sent are what it reported.

        Of an upstream that repeats its ids the gateway logs only the first call: an attempt whose own is not logged
        must not take an equal one of a neighbour's."""
        own = _adding_up(self._made(attempt), usage)
        if own is not None:
            self._take(attempt, own)
        return own is not None

    def _match(self, attempt: SentAttempt, usage: Usage, ended_at: datetime, unmatched: Sequence[SentAttempt]) -> None:
        waited = self._search.now - ended_at
        made, possible = self._made(attempt), self._possible(attempt, unmatched)
        own = _adding_up([*made, *possible, *self._taken_loosely(attempt)], usage)
        if own is not None:
            self._take(attempt, own)
        elif waited > CONFIRMED_WITHIN or (waited > QUIET and len(made) >= usage.model_calls):
            missing = len(made) < usage.model_calls
            for call in made:
                self._enter(call, attempt, UNMATCHED)
            self._settle(attempt, MISSING if missing else UNMATCHED, written_off=missing)
            self._put_aside(made)
        else:  # nothing is entered beside the estimate that stands for it
            self._put_aside([*self._new[attempt.key], *possible])

    def _take(self, attempt: SentAttempt, own: Sequence[ModelCall]) -> None:
        for call in own:
            self._enter(call, attempt)
        self._settle(attempt)
        self._put_aside(own)

    def _restore(self, attempt: SentAttempt, usage: Usage) -> None:
        """A row that the ledger has lost is known by the tokens that are missing at its attempt."""
        entered = [call for call in self._entered[attempt.key] if call.outcome == "success"]
        lost = _adding_up([*self._made(attempt), *self._taken_loosely(attempt)], usage, entered)
        for call in lost or ():
            self._enter(call, attempt)
        self._put_aside(lost or ())

    def _made(self, attempt: SentAttempt) -> list[ModelCall]:
        return [call for call in self._new[attempt.key] if call.outcome == "success"]

    def _possible(self, attempt: SentAttempt, unmatched: Sequence[SentAttempt] = ()) -> list[ModelCall]:
        """Calls of the neighbours that the clocks cannot tell from this attempt's; but none of one that is `unmatched`
        because more of its own are still to be logged."""
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
        return len(self._made(attempt)) < attempt.usage.model_calls

    def _taken_loosely(self, attempt: SentAttempt) -> list[ModelCall]:
        """Calls that were taken for housekeeping while this attempt, whose they may be, was not known to have ended."""
        return [call for call in self._loose if self._may_be(call, attempt)]

    def _may_be(self, call: ModelCall, attempt: SentAttempt) -> bool:
        place = self._search.attempts.index(attempt)
        following = self._search.attempts[place + 1].sent_at if place + 1 < len(self._search.attempts) else None
        began, error = self._clock.began(call), self._clock.error
        return attempt.sent_at - error <= began and (following is None or began <= following + error)

    def _take_rest(self, attempt: SentAttempt) -> None:
        """What a completed attempt did not report: refused and broken calls are its own, others housekeeping."""
        for call in self._new.pop(attempt.key, ()):
            self._enter(call, attempt if call.outcome == "failure" else None)

    # -- others: all their calls, as they come -----------------------------------------------------------------------

    def _take_all(self, attempt: SentAttempt, ended_at: datetime) -> None:
        for call in self._new.pop(attempt.key, ()):
            self._enter(call, attempt, AMBIGUOUS if self._may_be_of_the_one_before(call, attempt) else None)
        if not attempt.is_settled and self._is_over(attempt, ended_at):
            self._settle(attempt)

    def _may_be_of_the_one_before(self, call: ModelCall, attempt: SentAttempt) -> bool:
        place = self._search.attempts.index(attempt)
        before = self._search.attempts[place - 1] if place else None
        if before is None or not self._clock.ahead:
            return False
        return before.ended_at is None or self._clock.began(call) - self._clock.error <= before.ended_at

    def _is_over(self, attempt: SentAttempt, ended_at: datetime) -> bool:
        """Whether no call of it can be missing: the last one is logged, or would be by now. One that was answered after
        the attempt was made to stop was the last, while a refused one is tried again; a run that failed by itself ended
        with its last."""
        calls = self._logged[attempt.key]
        if attempt.stopped_at is not None:
            last, patience = attempt.stopped_at - AT_THE_END, LONGEST_CALL
            calls = [call for call in calls if call.is_charged]
        else:
            last, patience = ended_at - SOON_AFTER, ALL_LOGGED
        logged = any(self._clock.ended(call) >= last - self._clock.error for call in calls)
        return logged or self._search.now - ended_at > patience

    # -- entering ----------------------------------------------------------------------------------------------------

    def _enter(self, call: ModelCall, attempt: SentAttempt | None, flag: str | None = None) -> None:
        turn_id, number = attempt.key if attempt else (None, None)
        self._entries.append(LedgerEntry(call, turn_id, number, FREE if _is_free(call) else flag))

    def _put_aside(self, taken: Sequence[ModelCall]) -> None:
        for calls in (*self._new.values(), *self._logged.values(), self._loose):
            calls[:] = [call for call in calls if call not in taken]

    def _settle(self, attempt: SentAttempt, flag: str | None = None, *, written_off: bool = False) -> None:
        self._settled.append(Settled(attempt.turn_id, attempt.attempt, flag, written_off))


def _adding_up(
    calls: Sequence[ModelCall], usage: Usage, entered: Sequence[ModelCall] = ()
) -> tuple[ModelCall, ...] | None:
    """As many of the calls as were reported, with the reported sums of tokens, those that are entered included."""
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
    """Whether something that has a price was charged nothing."""
    priced = call.price is None or call.price.prompt > 0 or call.price.completion > 0
    return call.outcome == "success" and call.cost == 0 and call.total_tokens > 0 and priced
