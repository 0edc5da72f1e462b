"""An agent gateway whose open streams can be broken on purpose, to see a run recovered. In development only."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from server.ports import AgentEvent, AgentGateway, AgentHandle, OutgoingMessage, Run, StreamBrokenError


class BreakableGateway:
    """Implements `server.ports.AgentGateway` by another one."""

    def __init__(self, gateway: AgentGateway) -> None:
        self._gateway = gateway
        self._open: set[AgentHandle] = set()
        self._to_break: set[AgentHandle] = set()

    def break_stream(self, agent: AgentHandle) -> bool:
        """Break the agent's stream before its next event, as a lost connection would. Returns False if none is open."""
        if agent not in self._open:
            return False
        self._to_break.add(agent)
        return True

    @asynccontextmanager
    async def send(
        self, agent: AgentHandle, messages: Sequence[OutgoingMessage]
    ) -> AsyncIterator[AsyncIterator[AgentEvent]]:
        async with self._gateway.send(agent, messages) as events:
            self._open.add(agent)
            try:
                yield self._until_broken(agent, events)
            finally:
                self._open.discard(agent)
                self._to_break.discard(agent)

    async def _until_broken(self, agent: AgentHandle, events: AsyncIterator[AgentEvent]) -> AsyncIterator[AgentEvent]:
        async for event in events:
            if agent in self._to_break:
                raise StreamBrokenError("the stream was broken on purpose")
            yield event

    async def cancel(self, agent: AgentHandle, run_id: str | None) -> None:
        await self._gateway.cancel(agent, run_id)

    async def run(self, agent: AgentHandle, run_id: str) -> Run | None:
        return await self._gateway.run(agent, run_id)

    async def runs_within(self, agent: AgentHandle, seconds: float) -> list[Run]:
        return await self._gateway.runs_within(agent, seconds)

    async def reply(self, agent: AgentHandle, run_id: str) -> list[AgentEvent]:
        return await self._gateway.reply(agent, run_id)
