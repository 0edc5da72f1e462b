"""What is read from the REST API, since events do not tell it: pages of the history, and what was missed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ai_chat_client.errors import ChatError
from ai_chat_client.rest import Rest
from ai_chat_client.wire import Agent, History, Turn

LONGEST_PAUSE = 30.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Missed:
    page: History
    """The newest."""
    agent: Agent
    turns: tuple[Turn, ...]
    """Those that were asked for."""
    gone: frozenset[str]
    """The ids of those that do not exist any more."""


class Reader:
    def __init__(self, rest: Rest, page_size: int) -> None:
        self._rest = rest
        self._page_size = page_size

    async def page(self, before: str | None = None) -> History:
        """The newest page, or the one before a cursor. Raises ChatError."""
        query = {"limit": self._page_size, "include": "steps"} | ({"before": before} if before else {})
        page: History = await self._rest.json("chat/history", params=query)
        return page

    async def missed(self, turn_ids: Sequence[str]) -> Missed:
        """Ask until the server answers. Raises ChatError if it refuses."""
        pause = 1.0
        while True:
            try:
                return await self._missed(turn_ids)
            except ChatError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _missed(self, turn_ids: Sequence[str]) -> Missed:
        page = await self.page()
        agent: Agent = await self._rest.json("agent/status")
        turns = {turn_id: await self._turn(turn_id) for turn_id in turn_ids}
        gone = frozenset(turn_id for turn_id, turn in turns.items() if turn is None)
        return Missed(page, agent, tuple(turn for turn in turns.values() if turn is not None), gone)

    async def _turn(self, turn_id: str) -> Turn | None:
        try:
            turn: Turn = await self._rest.json(f"chat/turns/{turn_id}")
        except ChatError as error:
            if error.code != "not_found":
                raise
            return None
        return turn
