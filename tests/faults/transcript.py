"""A device's turns, assembled from frames, and every violation of the protocol in these frames.

It has no socket: a client feeds it with frames, and a test reads it.
"""

from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]
TERMINAL: Final = frozenset({"turn.completed", "turn.failed", "turn.cancelled"})
OPEN: Final = frozenset({"queued", "running"})


@dataclass(slots=True)
class Reply:
    """The newest attempt at a turn on this device."""

    turn_id: str
    attempt: int
    text: str = ""
    followed: bool = False
    """Whether `text` is the reply from its beginning: `turn.started` was received, or `ready` had the text."""
    turn: Json | None = None
    """The ended turn."""


@dataclass(slots=True)
class Transcript:
    """Feed it with `ready`, `accepted`, `receive` and `read`."""

    cursor: str | None = None
    replies: dict[str, Reply] = field(default_factory=dict)
    turn_of: dict[str, str] = field(default_factory=dict)
    """The turn of each of our messages that was accepted, by client_message_id."""
    ends: dict[tuple[str, int], Json] = field(default_factory=dict)
    """The turn as it ended, by turn and attempt."""
    faults: list[str] = field(default_factory=list)
    """Violations of the protocol: gaps, texts that contradict each other, attempts that end twice."""
    unfinished: list[str] = field(default_factory=list)
    """Replies whose last part came only with the terminal event."""
    epochs: int = 0
    _ended_attempts: set[tuple[str, int]] = field(default_factory=set)

    def ready(self, ready: Json) -> set[str]:
        """Process a `ready`. Returns the turns that may have ended meanwhile: they are to be read from the API."""
        if ready["resumed"]:
            if ready["cursor"] != self.cursor:
                self.faults.append(f"resumed at {ready['cursor']} instead of {self.cursor}")
            return set()
        self.cursor = ready["cursor"]
        self.epochs += 1
        missing = {reply.turn_id for reply in self.replies.values() if reply.turn is None}
        for turn_id in missing:
            self.replies[turn_id].followed, self.replies[turn_id].text = False, ""
        if (running := ready["turn"]) is not None:
            reply = self._reply(running["turn_id"], running["attempt"])
            reply.text, reply.followed = running["text"], True
            missing.discard(reply.turn_id)
        for turn in ready["queued"]:
            self.accepted(turn["client_message_id"], turn["id"])
            missing.discard(self._reply(turn["id"], turn["attempt"]).turn_id)
        return missing

    def receive(self, frame: Json) -> None:
        """Process any other frame."""
        if "seq" in frame:
            self._advance(frame)
        match frame["type"]:
            case "turn.queued" | "turn.started":
                self.accepted(frame["client_message_id"], frame["turn_id"])
                reply = self._reply(frame["turn_id"], frame["attempt"])
                reply.followed = reply.followed or frame["type"] == "turn.started"
            case "message.delta":
                self._append(frame)
            case type_ if type_ in TERMINAL:
                self._ended(frame)

    def accepted(self, message_id: str, turn_id: str) -> None:
        """A message was accepted as this turn."""
        if self.turn_of.setdefault(message_id, turn_id) != turn_id:
            self.faults.append(f"message {message_id} is both turn {self.turn_of[message_id]} and {turn_id}")
        self.replies.setdefault(turn_id, Reply(turn_id, attempt=0))

    def read(self, turn: Json) -> None:
        """Process a turn that was read from the REST API."""
        self.accepted(turn["client_message_id"], turn["id"])
        reply = self.replies.get(turn["id"])
        if reply is None or turn["attempt"] >= reply.attempt:
            reply = self._reply(turn["id"], turn["attempt"])
            if turn["status"] not in OPEN:
                self._end(reply, turn)

    def _advance(self, frame: Json) -> None:
        first, expected = frame.get("first_seq", frame["seq"]), "nothing before ready"
        if self.cursor is not None:
            epoch, _, seq = self.cursor.rpartition(":")
            expected = f"{epoch}:{int(seq) + 1}"
        if f"{frame['epoch']}:{first}" != expected:
            self.faults.append(f"{frame['type']} is {frame['epoch']}:{first} and not {expected}")
        self.cursor = f"{frame['epoch']}:{frame['seq']}"

    def _reply(self, turn_id: str, attempt: int) -> Reply:
        """The reply of this attempt; that of a new attempt is empty."""
        reply = self.replies.get(turn_id)
        if reply is None or attempt > reply.attempt:
            reply = self.replies[turn_id] = Reply(turn_id, attempt)
        elif attempt < reply.attempt:
            self.faults.append(f"turn {turn_id} went back from attempt {reply.attempt} to {attempt}")
        return reply

    def _append(self, delta: Json) -> None:
        reply = self._reply(delta["turn_id"], delta["attempt"])
        if not reply.followed:
            self.faults.append(f"text of turn {reply.turn_id} before it was started: {delta['text'][:40]!r}")
        if (reply.turn_id, reply.attempt) in self._ended_attempts:
            self.faults.append(f"text of turn {reply.turn_id} after its end: {delta['text'][:40]!r}")
        reply.text += delta["text"]

    def _ended(self, frame: Json) -> None:
        turn, attempt = frame["turn"], (frame["turn_id"], frame["attempt"])
        self.accepted(turn["client_message_id"], turn["id"])
        if "seq" in frame:
            if attempt in self._ended_attempts:
                self.faults.append(f"turn {turn['id']} ended twice")
            self._ended_attempts.add(attempt)
            self._compare(self._reply(*attempt), content_of(turn))
        elif frame["attempt"] < self.replies[turn["id"]].attempt:
            return  # the answer to a repeated message, overtaken by a retry
        self._end(self._reply(*attempt), turn)

    def _compare(self, reply: Reply, content: str) -> None:
        """The terminal message must equal the assembled text."""
        if reply.text == content:
            return
        if content.startswith(reply.text):
            self.unfinished.append(f"turn {reply.turn_id}: {reply.text[-40:]!r} of {content[-40:]!r}")
        else:
            self.faults.append(f"turn {reply.turn_id} says {reply.text!r}, its end {content!r}")

    def _end(self, reply: Reply, turn: Json) -> None:
        known = self.ends.setdefault((reply.turn_id, reply.attempt), turn)
        if (known["status"], content_of(known)) != (turn["status"], content_of(turn)):
            self.faults.append(f"turn {turn['id']} ended as {known['status']} and as {turn['status']}, or otherwise")
        reply.turn = turn


def content_of(turn: Json) -> str:
    """The assistant's message of an ended turn; empty where there is none."""
    return str(turn["message"]["content"]) if turn["message"] else ""
