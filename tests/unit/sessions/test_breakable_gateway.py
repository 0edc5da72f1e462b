"""A stream that is broken on purpose is one's own alone."""

import pytest

from server.ports import AgentHandle, OutgoingMessage, StreamBrokenError
from server.sessions.turns.breakable_gateway import BreakableGateway
from tests.fakes.agent import FakeAgentGateway

ADA, BEN = (AgentHandle(f"member-{name}", f"agent-{name}", f"conversation-{name}") for name in ("ada", "ben"))
HELLO = [OutgoingMessage("user", "one two three")]


async def test_only_the_stream_of_that_agent_breaks() -> None:
    async with FakeAgentGateway() as agents:
        gateway = BreakableGateway(agents)
        async with gateway.send(ADA, HELLO) as adas, gateway.send(BEN, HELLO) as bens:
            assert gateway.break_stream(ADA)
            assert [event async for event in bens]
            with pytest.raises(StreamBrokenError):
                await anext(adas)
        assert not gateway.break_stream(ADA)
