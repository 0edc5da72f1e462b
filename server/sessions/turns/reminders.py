"""The failed and cancelled turns that are sent to the agent again with the next message, as far as they fit. Pure."""

from collections.abc import Sequence
from typing import Final

from server.ports import Forgotten, OutgoingMessage
from server.protocol.text import is_readable

_INTERRUPTED: Final = " […] (interrupted)"
_NAMED_CHARACTERS: Final = 40


def reminders(forgotten: Sequence[Forgotten], most_bytes: int) -> list[OutgoingMessage]:
    """The turns that fit into `most_bytes`, the newest preferred, in order. A line before them names the others."""
    sent: list[OutgoingMessage] = []
    left_out: list[Forgotten] = []
    for turn in reversed(forgotten):
        messages = remind(turn)
        size = sum(len(message.content.encode(errors="replace")) for message in messages)
        if size > most_bytes:
            left_out.insert(0, turn)
            continue
        most_bytes -= size
        sent = [*messages, *sent]
    return [_naming(left_out), *sent] if left_out else sent


def remind(forgotten: Forgotten) -> list[OutgoingMessage]:
    """A turn that the agent does not remember: the user's message, and the reply as far as it had come."""
    user = OutgoingMessage("user", forgotten.user_text)
    if not is_readable(forgotten.partial_reply):
        return [user]
    return [user, OutgoingMessage("assistant", f"{forgotten.partial_reply}{_INTERRUPTED}")]


def _naming(left_out: Sequence[Forgotten]) -> OutgoingMessage:
    names = "; ".join(f"“{_beginning(turn.user_text)}”" for turn in left_out)
    return OutgoingMessage(
        "user", f"(Earlier messages of mine without a whole reply, too long to repeat here: {names})"
    )


def _beginning(text: str) -> str:
    line = " ".join(text[: 4 * _NAMED_CHARACTERS].split())
    return line if len(line) <= _NAMED_CHARACTERS and len(line) == len(text) else f"{line[:_NAMED_CHARACTERS]}…"
