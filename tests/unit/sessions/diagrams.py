"""The life cycles as Mermaid diagrams, from the tables in the code: docs/architecture.md shows them."""

from itertools import product, starmap

from server.sessions.state import MOVES, Event, Facts, Phase, SessionState, transition
from server.sessions.turns.transitions import TRANSITIONS

OWNING = frozenset({Phase.OWNER_IDLE, Phase.STARTING, Phase.RUNNING, Phase.CONCLUDING, Phase.RELEASING})


def session_diagram() -> str:
    """Which events move a session from one phase to another, whatever the facts are."""
    arrows: dict[tuple[str, str], set[str]] = {}
    for (phase, event), after in MOVES.items():
        arrows.setdefault((_name(phase), _name(after)), set()).add(event.value)
    for phase, outdated, facts in product(Phase, (False, True), starmap(Facts, product((False, True), repeat=6))):
        if facts.has_lease == (phase in OWNING) if phase is not Phase.CLAIMING else outdated:
            after = transition(SessionState(phase, outdated), Event.SETTLED, facts)[0].phase
            if after is not phase:
                arrows.setdefault((_name(phase), _name(after)), set()).add(Event.SETTLED.value)
    return _diagram(_name(Phase.FOLLOWING), arrows)


def turn_diagram() -> str:
    """Which SQL function changes a turn's status from one to another."""
    arrows: dict[tuple[str, str], set[str]] = {}
    for one in TRANSITIONS:
        if one.before is not None:
            arrows.setdefault((one.before.value, one.after.value), set()).add(one.function)
    return _diagram("queued", arrows)


def _diagram(first: str, arrows: dict[tuple[str, str], set[str]]) -> str:
    lines = [f"  {before} --> {after}: {', '.join(sorted(why))}" for (before, after), why in sorted(arrows.items())]
    return "\n".join(("```mermaid", "stateDiagram-v2", f"  [*] --> {first}", *lines, "```"))


def _name(phase: Phase) -> str:
    return phase.value.replace(" ", "_")
