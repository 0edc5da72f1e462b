"""The life cycle of a session as a table, and that of a turn against the SQL functions that change it."""

import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from server.protocol.shapes import TurnStatus
from server.sessions.state import BUSY, Effect, Event, Facts, Phase, SessionState, transition
from server.sessions.turns.transitions import TRANSITIONS
from tests.unit.sessions.diagrams import OWNING, session_diagram, turn_diagram

PROJECT = Path(__file__).parents[3]
OWNER = Facts(has_lease=True)
FOLLOWER = Facts(has_lease=False)

SETTLING = [
    # a follower
    (Phase.FOLLOWING, False, FOLLOWER, Phase.FOLLOWING, None),
    (Phase.FOLLOWING, True, FOLLOWER, Phase.CLAIMING, Effect.CLAIM),
    (Phase.FOLLOWING, True, replace(FOLLOWER, may_start=False), Phase.FOLLOWING, None),
    (Phase.FOLLOWING, True, replace(FOLLOWER, draining=True), Phase.FOLLOWING, None),
    (Phase.CLAIMING, True, FOLLOWER, Phase.CLAIMING, None),
    (Phase.CLAIMING, True, replace(FOLLOWER, draining=True, may_start=False), Phase.FOLLOWING, None),
    # an owner without a running turn
    (Phase.OWNER_IDLE, False, OWNER, Phase.RELEASING, Effect.RELEASE),
    (Phase.OWNER_IDLE, False, replace(OWNER, waits=True), Phase.STARTING, Effect.ACQUIRE_SLOT),
    (Phase.OWNER_IDLE, True, replace(OWNER, waits=True), Phase.CLAIMING, Effect.CLAIM),
    (Phase.OWNER_IDLE, False, replace(OWNER, shows_running=True), Phase.CLAIMING, Effect.CLAIM),
    (Phase.OWNER_IDLE, False, replace(OWNER, keeps_lease=True), Phase.OWNER_IDLE, None),
    (Phase.OWNER_IDLE, False, replace(OWNER, waits=True, keeps_lease=True), Phase.STARTING, Effect.ACQUIRE_SLOT),
    (Phase.OWNER_IDLE, False, replace(OWNER, may_start=False), Phase.OWNER_IDLE, None),
    (Phase.OWNER_IDLE, True, replace(OWNER, waits=True, draining=True), Phase.RELEASING, Effect.RELEASE),
    (Phase.STARTING, False, replace(OWNER, waits=True), Phase.STARTING, None),
    (Phase.STARTING, False, OWNER, Phase.RELEASING, Effect.RELEASE),
    (Phase.STARTING, False, replace(OWNER, waits=True, draining=True), Phase.RELEASING, Effect.RELEASE),
    (Phase.RELEASING, False, OWNER, Phase.RELEASING, None),
    (Phase.RELEASING, False, replace(OWNER, waits=True), Phase.STARTING, Effect.ACQUIRE_SLOT),
    (Phase.RELEASING, True, OWNER, Phase.CLAIMING, Effect.CLAIM),
]


@pytest.mark.parametrize(("phase", "outdated", "facts", "after", "effect"), SETTLING)
def test_a_session_that_has_nothing_left_to_do_decides_by_the_facts(
    phase: Phase, outdated: bool, facts: Facts, after: Phase, effect: Effect | None
) -> None:
    assert transition(SessionState(phase, outdated), Event.SETTLED, facts) == (SessionState(after, outdated), effect)


STEPS = [
    (Phase.FOLLOWING, Event.CLAIMED, Phase.OWNER_IDLE, None),
    (Phase.CLAIMING, Event.CLAIMED, Phase.OWNER_IDLE, None),
    (Phase.CLAIMING, Event.REFUSED, Phase.FOLLOWING, None),
    (Phase.OWNER_IDLE, Event.STARTED, Phase.RUNNING, None),
    (Phase.STARTING, Event.STARTED, Phase.RUNNING, None),
    (Phase.RELEASING, Event.STARTED, Phase.RUNNING, None),
    (Phase.RUNNING, Event.CLAIMED, Phase.RUNNING, None),
    (Phase.RUNNING, Event.ATTEMPT_ENDED, Phase.CONCLUDING, None),
    (Phase.CONCLUDING, Event.CLAIMED, Phase.CONCLUDING, None),
    (Phase.CONCLUDING, Event.END_STORED, Phase.OWNER_IDLE, None),
    (Phase.RELEASING, Event.RELEASED, Phase.FOLLOWING, None),
    (Phase.RELEASING, Event.KEPT, Phase.OWNER_IDLE, None),
    (Phase.RELEASING, Event.CLAIMED, Phase.OWNER_IDLE, None),
]


@pytest.mark.parametrize(("phase", "event", "after", "effect"), STEPS)
@pytest.mark.parametrize("facts", [OWNER, FOLLOWER])
def test_an_event_moves_a_session_on_whatever_the_facts_are(
    phase: Phase, event: Event, after: Phase, effect: Effect | None, facts: Facts
) -> None:
    state, done = transition(SessionState(phase), event, facts)
    assert (state.phase, done) == (after, effect)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.LOST])
def test_another_owner_ends_a_session_in_every_phase(phase: Phase) -> None:
    assert transition(SessionState(phase, True), Event.FENCED, OWNER) == (SessionState(Phase.LOST), None)
    assert transition(SessionState(phase, True), Event.CLOSED, OWNER) == (SessionState(Phase.LOST), None)


@pytest.mark.parametrize(("event", "facts"), list(product(Event, [OWNER, FOLLOWER, replace(OWNER, waits=True)])))
def test_a_lost_session_stays_lost_and_does_nothing(event: Event, facts: Facts) -> None:
    assert transition(SessionState(Phase.LOST), event, facts) == (SessionState(Phase.LOST), None)


@pytest.mark.parametrize("phase", sorted(BUSY))
@pytest.mark.parametrize("draining", [False, True])
def test_a_running_turn_is_left_alone(phase: Phase, draining: bool) -> None:
    facts = Facts(has_lease=True, waits=True, shows_running=True, draining=draining, may_start=not draining)
    assert transition(SessionState(phase, True), Event.SETTLED, facts) == (SessionState(phase, True), None)


@pytest.mark.parametrize("phase", sorted(OWNING | {Phase.FOLLOWING, Phase.CLAIMING}))
def test_a_session_stays_outdated_until_the_lease_was_claimed_or_refused(phase: Phase) -> None:
    marked, effect = transition(SessionState(phase), Event.OUTDATED, OWNER)
    assert (marked, effect) == (SessionState(phase, outdated=True), None)
    for event in (Event.STARTED, Event.ATTEMPT_ENDED, Event.END_STORED):
        assert transition(marked, event, OWNER)[0].outdated
    assert not transition(marked, Event.CLAIMED, OWNER)[0].outdated
    assert not transition(marked, Event.REFUSED, FOLLOWER)[0].outdated


def test_the_documentation_shows_these_life_cycles() -> None:
    """When this fails, replace them by what it shows."""
    text = (PROJECT / "docs" / "architecture.md").read_text("utf-8")
    assert session_diagram() in text
    assert turn_diagram() in text


def _functions() -> dict[str, str]:
    """The SQL functions by name, without their comments."""
    found: dict[str, str] = {}
    for file in sorted((PROJECT / "supabase" / "migrations").glob("9*.sql")):
        text = re.sub(r"--.*", "", file.read_text("utf-8"))
        for name, body in re.findall(r"create or replace function \w+\.(\w+)\(.*?as \$\$(.*?)\$\$", text, re.DOTALL):
            found[name] = f"{found.get(name, chr(32))}{body};"
    return found


def test_the_functions_that_change_a_turns_status_are_those_of_the_table() -> None:
    writing = {
        name
        for name, body in _functions().items()
        for update in re.findall(r"update public\.turns\b.*?;|insert into public\.turns\b", body, re.DOTALL)
        if update.startswith("insert") or re.search(r"\bstatus = ", _set_clause(update))
    }
    assert writing == {one.function for one in TRANSITIONS}


def _set_clause(update: str) -> str:
    return update.partition("set")[2].partition("where")[0]


@pytest.mark.parametrize("one", TRANSITIONS, ids=lambda one: f"{one.before}-{one.after}-{one.function}")
def test_each_transition_is_made_by_its_function_for_those_that_call_it(one: object) -> None:
    functions = _functions()
    assert isinstance(one, type(TRANSITIONS[0]))
    for name in one.called_by:
        assert one.function in _reached_from(name, functions), f"{name} does not reach {one.function}"


def _reached_from(name: str, functions: dict[str, str]) -> set[str]:
    reached, left = set(), [name]
    while left:
        one = left.pop()
        if one not in reached:
            reached.add(one)
            left += [other for other in functions if re.search(rf"\b(private|public)\.{other}\(", functions[one])]
    return reached


def test_every_ended_turn_but_a_completed_one_may_be_retried() -> None:
    ends = {one.after for one in TRANSITIONS} - {TurnStatus.QUEUED, TurnStatus.RUNNING}
    retried = {one.before for one in TRANSITIONS if one.function == "retry_turn"}
    assert retried == ends - {TurnStatus.COMPLETED}
