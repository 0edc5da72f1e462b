"""A user's open connections on all instances: each instance is asked by a control message, and answers by another."""

import asyncio
import uuid
from typing import Final

from server.ports import ControlMessage, OpenConnection
from server.sessions.hub import SessionHub
from server.streaming.subscriber import Subscriber

ANSWER_SECONDS: Final = 0.5
"""How long the answers of other instances are awaited: their number is unknown, and Redis delivers in milliseconds."""


class ConnectionList:
    """Asks for connections, and answers the questions of other instances."""

    def __init__(self, hub: SessionHub) -> None:
        self._hub = hub
        self._answers: dict[str, list[OpenConnection]] = {}

    async def of_user(self, user_id: str) -> list[OpenConnection]:
        """The user's connections, the newest first; without those of instances that cannot be reached."""
        request = uuid.uuid4().hex
        found = self._answers[request] = []
        try:
            self._hub.broadcast(ControlMessage("connections", user_id, request=request))  # answered here at once
            if self._hub.has_others:
                await asyncio.sleep(ANSWER_SECONDS)
        finally:
            del self._answers[request]
        return sorted(found, key=lambda one: one.opened_at, reverse=True)

    def received(self, message: ControlMessage) -> None:
        """A question or an answer. Never waits."""
        if message.kind == "connections":
            here = self._here(message.user_id)
            if here:
                self._hub.broadcast(
                    ControlMessage("connected", message.user_id, request=message.request, connections=here)
                )
        elif message.kind == "connected" and message.request in self._answers:
            self._answers[message.request].extend(message.connections)

    def _here(self, user_id: str) -> tuple[OpenConnection, ...]:
        session = self._hub.sessions.get(user_id)
        found = () if session is None else session.connections
        return tuple(one.opened for one in found if isinstance(one, Subscriber) and one.opened is not None)
