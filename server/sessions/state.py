"""The life cycle of a session on one instance: its phases, what moves it on, and what has to be done then.

Pure: no I/O, no clock, no await. The session feeds it events and carries out the effects that it returns.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    FOLLOWING = "following"  # another instance owns the session, or none does
    CLAIMING = (
        "claiming"  # the rows may hold what is not known here: the lease is claimed or renewed, and they are compared
    )
    OWNER_IDLE = "owner idle"  # this instance owns the session and runs no turn
    STARTING = "starting"  # turns wait, and the first of them for a slot
    RUNNING = "running"  # an attempt at a turn is under way
    CONCLUDING = "concluding"  # its end is being stored
    RELEASING = "releasing"  # nothing is open: the lease is given up
    LOST = "lost"  # another owner has the session, or it was closed here: the next caller gets a new one


class Event(StrEnum):
    OUTDATED = "outdated"  # the rows may hold open turns that are not known here, or that no owner runs
    CLAIMED = "claimed"  # the lease was granted, and the rows were compared
    REFUSED = "refused"  # another owner's lease is valid
    STARTED = "started"  # a turn is the running one in the database, and runs here
    ATTEMPT_ENDED = "attempt ended"
    END_STORED = "end stored"
    RELEASED = "released"
    KEPT = "kept"  # the lease was not released, since turns are open
    SETTLED = "settled"  # no command is left: decide what comes next
    FENCED = "fenced"  # another owner has the session
    CLOSED = "closed"  # the instance ends


class Effect(StrEnum):
    """What takes time, may fail, and is retried for as long as the phase lasts."""

    CLAIM = "claim"
    ACQUIRE_SLOT = "acquire slot"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class SessionState:
    """`outdated`: what is known here has to be compared with the rows, under the lease, before anything is started."""

    phase: Phase = Phase.FOLLOWING
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What a session without a running turn decides by.

    `waits`: turns wait. `shows_running`: a turn is shown as running, and does not run here. `may_start`: the leases are
    current and the instance is not draining. `keeps_lease`: though nothing is open, since other instances cannot be
    reached.
    """

    has_lease: bool = False
    waits: bool = False
    shows_running: bool = False
    may_start: bool = True
    draining: bool = False
    keeps_lease: bool = False


BUSY: Final = frozenset({Phase.RUNNING, Phase.CONCLUDING})

MOVES: Final[dict[tuple[Phase, Event], Phase]] = {
    (Phase.FOLLOWING, Event.CLAIMED): Phase.OWNER_IDLE,
    (Phase.CLAIMING, Event.CLAIMED): Phase.OWNER_IDLE,
    (Phase.RELEASING, Event.CLAIMED): Phase.OWNER_IDLE,
    (Phase.CLAIMING, Event.REFUSED): Phase.FOLLOWING,
    (Phase.OWNER_IDLE, Event.STARTED): Phase.RUNNING,
    (Phase.STARTING, Event.STARTED): Phase.RUNNING,
    (Phase.RELEASING, Event.STARTED): Phase.RUNNING,
    (Phase.RUNNING, Event.ATTEMPT_ENDED): Phase.CONCLUDING,
    (Phase.CONCLUDING, Event.END_STORED): Phase.OWNER_IDLE,
    (Phase.RELEASING, Event.RELEASED): Phase.FOLLOWING,
    (Phase.RELEASING, Event.KEPT): Phase.OWNER_IDLE,
}
"""Every event that is not here, nor decided by `_next` or `transition` itself, leaves the phase as it is."""

ON_ENTERING: Final = {
    Phase.CLAIMING: Effect.CLAIM,
    Phase.STARTING: Effect.ACQUIRE_SLOT,
    Phase.RELEASING: Effect.RELEASE,
}


def transition(state: SessionState, event: Event, facts: Facts) -> tuple[SessionState, Effect | None]:
    """The next state, and what has to be done because of it."""
    if state.phase is Phase.LOST:
        return state, None
    if event in {Event.FENCED, Event.CLOSED}:
        return SessionState(Phase.LOST), None
    is_compared = event in {Event.CLAIMED, Event.REFUSED}
    outdated = event in {Event.OUTDATED, Event.KEPT} or (state.outdated and not is_compared)
    phase = MOVES.get((state.phase, event), state.phase)
    if event is Event.SETTLED:
        phase = _next(replace(state, outdated=outdated), facts)
    effect = ON_ENTERING.get(phase) if phase is not state.phase else None
    return SessionState(phase, outdated), effect


def _next(state: SessionState, facts: Facts) -> Phase:
    """Where a session goes that has nothing left to do in its phase."""
    phase, outdated = state.phase, state.outdated
    if phase in BUSY:
        return phase
    if not facts.has_lease:
        wanted = outdated and not facts.draining and (facts.may_start or phase is Phase.CLAIMING)
        return Phase.CLAIMING if wanted else Phase.FOLLOWING
    if facts.draining:
        return Phase.RELEASING
    if not facts.may_start:
        return phase
    return _of_owner(outdated or facts.shows_running, facts)


def _of_owner(outdated: bool, facts: Facts) -> Phase:
    if outdated:
        return Phase.CLAIMING
    if facts.waits:
        return Phase.STARTING
    return Phase.OWNER_IDLE if facts.keeps_lease else Phase.RELEASING
