"""Commands that the server has not answered yet. Each is sent again after every reconnect, with the same id, until it
is acknowledged or refused: the server makes one turn of a message however often it arrives.

Each message is stored under a key of its own. So two programs of one user may share a storage: neither overwrites what
the other stores, and a message that both send is one turn."""

import asyncio
import json
import random
import re
import secrets
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass

from ai_chat_client.commands import Answered, id_of
from ai_chat_client.errors import ChatError, chat_error
from ai_chat_client.wire import ErrorFrame, Frame, MessageFrame

PASSES = re.compile(r"^(rate_limited|overloaded|draining|internal_error|network)$|_unavailable$")
"""Errors that pass by themselves, so that waiting is better than asking the user."""
TRIES = 6
LONGEST_PAUSE = 60.0
"""Seconds."""


def retry_id(turn_id: str) -> str:
    """The id of the command that retries a turn."""
    return f"retry:{turn_id}"


@dataclass(slots=True)
class _Pending:
    command: Answered
    answer: asyncio.Future[str]
    sent: int = 0
    refusals: int = 0
    timer: asyncio.TimerHandle | None = None
    key: str | None = None
    """Where it is stored."""


class Outbox:
    """`postponed` is called when the server put a message off; it is sent again by itself."""

    def __init__(
        self,
        transmit: Callable[[Answered], None],
        postponed: Callable[[str, ChatError], None],
        storage: MutableMapping[str, str] | None,
    ) -> None:
        self._transmit, self._postponed, self._storage = transmit, postponed, storage
        self._pending: dict[str, _Pending] = {}
        self._prefix: str | None = None
        self._keys: dict[str, str] = {}
        """Of restored messages, by their ids."""

    def add(self, command: Answered) -> asyncio.Future[str]:
        """Send until it is answered. The answer is the turn's id, or a ChatError."""
        command_id = id_of(command)
        known = self._pending.get(command_id)
        if known:
            return known.answer
        pending = _Pending(command, asyncio.get_running_loop().create_future(), key=self._keys.pop(command_id, None))
        self._pending[command_id] = pending
        self._store(pending)
        self._send(pending)
        return pending.answer

    def restore(self, user_id: str) -> list[MessageFrame]:
        """Messages of this user that a previous run could not send. Call it when the user is known."""
        self._prefix = f"chat.outbox.{user_id}."
        messages = []
        for key in sorted(key for key in self._storage or () if key.startswith(self._prefix)):
            message = self._stored(key)
            pending = self._pending.get(message["client_message_id"]) if message else None
            if pending:
                pending.key = key
            elif message:
                self._keys[message["client_message_id"]] = key
                messages.append(message)
        for pending in self._pending.values():
            self._store(pending)
        return messages

    def flush(self) -> None:
        """The link begins, or begins anew: send everything that waits for an answer."""
        for pending in list(self._pending.values()):
            if pending.timer is None:
                self._send(pending)

    def receive(self, frame: Frame) -> str | None:
        """Returns the id of the turn that is retried, if this is the first that is heard of it."""
        if frame["type"] == "error":
            self._refuse(frame)
        elif frame["type"] == "ack":
            return self._accept(frame["id"], frame["turn_id"])
        elif frame["type"] == "turn.queued" or frame["type"] == "turn.started":
            # the event may come before the ack, or instead of a lost one
            self._accept(frame["client_message_id"], frame["turn_id"])
            return self._accept(retry_id(frame["turn_id"]), frame["turn_id"])
        return None

    def clear(self, error: ChatError) -> None:
        """Give up on everything. What is stored stays, for the user whom it belongs to."""
        self._prefix = None
        self._keys.clear()
        for pending in list(self._pending.values()):
            self._forget(pending).set_exception(error)

    def _accept(self, command_id: str | None, turn_id: str | None) -> str | None:
        pending = self._pending.get(command_id or "")
        if pending is None or turn_id is None:
            return None
        self._forget(pending).set_result(turn_id)
        return turn_id if pending.command["type"] == "retry" else None

    def _send(self, pending: _Pending) -> None:
        pending.sent += 1
        self._transmit(pending.command)

    def _send_again(self, pending: _Pending) -> None:
        pending.timer = None
        self._send(pending)

    def _refuse(self, frame: ErrorFrame) -> None:
        pending = self._pending.get(frame.get("id") or "")
        if pending is None:
            return
        error = chat_error(frame)
        is_temporary = error.retryable and PASSES.search(error.code) is not None
        if error.code == "not_retryable" and pending.command["type"] == "retry" and pending.sent > 1:
            turn_id = pending.command["turn_id"]
            self._forget(pending).set_result(turn_id)  # the first one arrived, and its ack was lost
        elif is_temporary and pending.refusals < TRIES:
            pending.refusals += 1
            pause = 2.0**pending.refusals if error.retry_after is None else error.retry_after
            seconds = min(pause, LONGEST_PAUSE) * (1 + random.random() / 4)  # noqa: S311 - jitter, not a secret
            if pending.timer:
                pending.timer.cancel()
            pending.timer = asyncio.get_running_loop().call_later(seconds, self._send_again, pending)
            self._postponed(id_of(pending.command), error)
        else:
            self._forget(pending).set_exception(error)

    def _forget(self, pending: _Pending) -> asyncio.Future[str]:
        if pending.timer:
            pending.timer.cancel()
        del self._pending[id_of(pending.command)]
        if self._prefix is not None and pending.key is not None:
            self._delete(pending.key)
        return pending.answer

    def _store(self, pending: _Pending) -> None:
        if self._prefix is None or self._storage is None or pending.key or pending.command["type"] != "message":
            return
        pending.key = f"{self._prefix}{time.time_ns():020}.{secrets.token_hex(4)}"  # sorted by age
        self._storage[pending.key] = json.dumps(pending.command)

    def _stored(self, key: str) -> MessageFrame | None:
        """None: another program has deleted it, or a crash of the machine left half of it."""
        assert self._storage is not None
        try:
            message: MessageFrame | None = json.loads(self._storage[key])
        except KeyError:
            return None
        except ValueError:
            self._delete(key)
            return None
        return message

    def _delete(self, key: str) -> None:
        assert self._storage is not None
        with suppress(KeyError):  # not `pop`, which raises it if another program deletes the key meanwhile
            del self._storage[key]
