"""The life cycle of a turn: which status follows which, and the SQL function that changes it, in one transaction.

PostgreSQL decides: nothing here is called. Each function compares the status before with what it expects, so that a
call that is repeated, or comes from an owner that was replaced, changes nothing.
"""

from dataclasses import dataclass
from typing import Final

from server.protocol.shapes import TurnStatus

QUEUED, RUNNING, UNSENT = TurnStatus.QUEUED, TurnStatus.RUNNING, TurnStatus.UNSENT
COMPLETED, FAILED, CANCELLED = TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.CANCELLED


@dataclass(frozen=True, slots=True)
class TurnTransition:
    """`before` is None for a new turn. `function` changes the row; `called_by` are the functions that this server calls
    for it."""

    before: TurnStatus | None
    after: TurnStatus
    function: str
    called_by: tuple[str, ...]
    when: str


TRANSITIONS: Final = (
    TurnTransition(None, QUEUED, "accept_turn", ("accept_turn",), "a message is stored"),
    TurnTransition(
        QUEUED, RUNNING, "run_turn", ("accept_turn", "retry_turn", "start_turn"), "nothing runs, and there is a slot"
    ),
    TurnTransition(QUEUED, CANCELLED, "cancel_turns", ("request_cancel", "accept_turn"), "cancelled, or interrupted"),
    TurnTransition(
        QUEUED, UNSENT, "leave_unsent", ("accept_turn", "retry_turn", "start_turn"), "the budget is used up"
    ),
    TurnTransition(RUNNING, COMPLETED, "finish_turn", ("finish_turn",), "the agent's run completed"),
    TurnTransition(RUNNING, FAILED, "finish_turn", ("finish_turn",), "it failed, was lost, or took too long"),
    TurnTransition(RUNNING, CANCELLED, "finish_turn", ("finish_turn",), "the user asked for it"),
    TurnTransition(RUNNING, UNSENT, "finish_turn", ("finish_turn",), "the gateway refused it for the budget"),
    TurnTransition(FAILED, QUEUED, "retry_turn", ("retry_turn",), "the user retries it: the next attempt"),
    TurnTransition(CANCELLED, QUEUED, "retry_turn", ("retry_turn",), "the same"),
    TurnTransition(UNSENT, QUEUED, "retry_turn", ("retry_turn",), "the same"),
)
