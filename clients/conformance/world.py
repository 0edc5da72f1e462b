"""The pretended user of a run: turns, numbered events, and what the REST API answers about them."""

import itertools
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]

USER_ID = str(uuid.uuid4())
LIMITS: Json = {
    "frame_bytes": 65536,
    "content_characters": 32000,
    "waiting_turns_per_user": 8,
    "messages_per_minute": 30,
    "ping_seconds": 25.0,
    "turn_seconds": 240.0,
}
USAGE: Json = {
    "prompt_tokens": 40,
    "completion_tokens": 2,
    "total_tokens": 42,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "model_calls": 1,
}


STEPS = ("reasoning.delta", "tool.called", "tool.returned")


class World:
    """Each method that begins or continues a turn returns the event that the platform would publish."""

    def __init__(self) -> None:
        self.turns: dict[str, Json] = {}
        """In the order of acceptance."""
        self.steps: dict[str, list[Json]] = {}
        """What turns keep of their reasoning and tool calls, by turn."""
        self.epoch = "epoch1"
        self.seq = 0
        self._minutes = itertools.count()

    @property
    def cursor(self) -> str:
        return f"{self.epoch}:{self.seq}"

    def begin_epoch(self) -> None:
        self.epoch, self.seq = f"epoch{int(self.epoch[5:]) + 1}", 0

    # -- turns ----------------------------------------------------------------------------------------------------

    def accept(self, content: str, client_message_id: str | None = None) -> Json:
        """A new turn: it waits."""
        turn_id, now = str(uuid.uuid4()), self._now()
        turn: Json = {
            "id": turn_id,
            "status": "queued",
            "attempt": 1,
            "client_message_id": client_message_id or str(uuid.uuid4()),
            "user_message": self._message(turn_id, "user", content, now),
            "message": None,
            **dict.fromkeys(("usage", "cost", "cost_status", "error", "reason", "queue_position"), None),
            "created_at": now,
            "started_at": None,
            "finished_at": None,
        }
        self.turns[turn_id] = turn
        return turn

    def queued(self, turn: Json, position: int = 1) -> Json:
        turn.update(status="queued", queue_position=position)
        return self._event("turn.queued", turn, **_beginning(turn), queue_position=position)

    def started(self, turn: Json) -> Json:
        turn.update(status="running", queue_position=None, started_at=self._now())
        return self._event("turn.started", turn, **_beginning(turn), queue_position=None)

    def delta(self, turn: Json, text: str) -> Json:
        return self._event("message.delta", turn, text=text)

    def joined(self, turn: Json, *texts: str) -> Json:
        """Adjacent deltas in one frame."""
        first = self.seq + 1
        self.seq += len(texts) - 1
        return self.delta(turn, "".join(texts)) | {"first_seq": first}

    def reasoning(self, turn: Json, text: str) -> Json:
        return self._event("reasoning.delta", turn, text=text)

    def tool_called(self, turn: Json, call_id: str, name: str, arguments: str = "{}") -> Json:
        return self._event("tool.called", turn, call_id=call_id, name=name, arguments=arguments, truncated=False)

    def tool_returned(self, turn: Json, call_id: str, name: str, status: str = "success") -> Json:
        return self._event("tool.returned", turn, call_id=call_id, name=name, status=status)

    def completed(self, turn: Json, text: str) -> Json:
        turn.update(usage=USAGE, cost="0.0012", cost_status="estimated")
        return self._end(turn, "completed", text, "complete")

    def cancelled(self, turn: Json, text: str) -> Json:
        return self._end(turn, "cancelled", text, "partial")

    def failed(self, turn: Json, code: str, message: str, *, retryable: bool, text: str | None = None) -> Json:
        turn["error"] = {"code": code, "message": message, "retryable": retryable, "retry_after": None}
        return self._end(turn, "failed", text, "partial")

    def unsent(self, turn: Json) -> Json:
        turn["user_message"]["status"] = "unsent"
        turn["error"] = {
            "code": "budget_exceeded",
            "message": "The budget is used up.",
            "retryable": True,
            "retry_after": 60,
            "spent": "10",
            "limit": "10",
            "resets_at": self._now(),
        }
        return self._end(turn, "unsent", None, "partial") | {"type": "turn.failed"}

    def retried(self, turn: Json) -> Json:
        turn.update(attempt=turn["attempt"] + 1, message=None, error=None, finished_at=None)
        self.steps.pop(turn["id"], None)
        return self.started(turn)

    def settled(self, turn: Json, cost: str) -> Json:
        turn.update(cost=cost, cost_status="settled")
        return self._event("usage.settled", turn, cost=cost, cost_status="settled", usage=turn["usage"])

    def event(self, event_type: str, **fields: Any) -> Json:
        """An event that belongs to no turn."""
        self.seq += 1
        return {"type": event_type, "epoch": self.epoch, "seq": self.seq, "at": self._now(), **fields}

    # -- what clients ask for -------------------------------------------------------------------------------------

    def ready(self, *, resumed: bool, cursor: str | None = None, turn: Json | None = None, text: str = "") -> Json:
        """`turn`: the running one, with its text and steps as of the cursor."""
        running = turn and {"turn_id": turn["id"], "text": text, **_kept(turn, "attempt", "user_message")}
        if turn and running:
            running["steps"] = list(self.steps.get(turn["id"], []))
        return {
            "type": "ready",
            "cursor": cursor or self.cursor,
            "resumed": resumed,
            "user_id": USER_ID,
            "limits": LIMITS,
            "turn": running,
            "queued": [] if resumed else [turn for turn in self.turns.values() if turn["status"] == "queued"],
        }

    def history(self, limit: int, before: str | None, *, with_steps: bool = False) -> Json:
        turns = [self.turn(turn_id) for turn_id in self.turns] if with_steps else self.turns.values()
        messages = [message for turn in turns for message in (turn["user_message"], turn["message"])]
        newest_first = [message for message in reversed(messages) if message]
        start = int(before or 0)
        page = newest_first[start : start + limit]
        has_more = start + limit < len(newest_first)
        return {"data": page, "has_more": has_more, "next_cursor": str(start + limit) if has_more else None}

    def turn(self, turn_id: str) -> Json:
        """The turn, its reply with its steps. Raises KeyError."""
        turn = _copied(self.turns[turn_id])
        if turn["message"]:
            turn["message"]["steps"] = list(self.steps.get(turn_id, []))
        return turn

    def agent(self) -> Json:
        return {
            "status": "active",
            "reason": None,
            "agent_id": "agent-1",
            "model": "gpt-4",
            "turn": None,
            "queued": [],
            "updated_at": self._now(),
        }

    # -- shapes ---------------------------------------------------------------------------------------------------

    def _event(self, event_type: str, about: Json, /, **fields: Any) -> Json:
        if event_type in STEPS:
            self._keep(self.steps.setdefault(about["id"], []), {"type": event_type, **fields})
        return self.event(event_type, turn_id=about["id"], attempt=about["attempt"], **fields)

    def _keep(self, steps: list[Json], step: Json) -> None:
        """Add a step; adjacent reasoning is one step."""
        if steps and steps[-1]["type"] == step["type"] == "reasoning.delta":
            steps[-1] = {**step, "text": steps[-1]["text"] + step["text"]}
        else:
            steps.append(step)

    def _end(self, turn: Json, status: str, text: str | None, message_status: str) -> Json:
        now = self._now()
        message = (
            None if text is None else self._message(turn["id"], "assistant", text, now) | {"status": message_status}
        )
        turn.update(status=status, message=message, finished_at=now)
        return self._event(f"turn.{status}", turn, turn=_copied(turn))

    def _message(self, turn_id: str, role: str, content: str, now: str) -> Json:
        return {
            "id": str(uuid.uuid4()),
            "turn_id": turn_id,
            "role": role,
            "content": content,
            "status": "complete",
            "tokens_used": None,
            "cost": None,
            "created_at": now,
        }

    def _now(self) -> str:
        return (datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=next(self._minutes))).isoformat()


def _beginning(turn: Json) -> Json:
    return _kept(turn, "user_message", "client_message_id")


def _kept(turn: Json, *names: str) -> Json:
    return {name: turn[name] for name in names}


def _copied(turn: Json) -> Json:
    return {**turn, "user_message": dict(turn["user_message"]), "message": turn["message"] and dict(turn["message"])}
