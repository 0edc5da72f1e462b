"""The agents of the contract suite, scripted in memory and real: both obey the scripted model's directives."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from server.ports import AgentGateway, AgentHandle, OutgoingMessage
from tests.fakes.agent import MODEL_FAILED, FakeAgentGateway, Reply, Tool
from tests.model_script import last_directive
from tests.scripted_model import Gate


class AgentWorld(Protocol):
    @property
    def gateway(self) -> AgentGateway: ...

    async def fresh(self) -> AgentHandle:
        """An agent with a new conversation."""
        ...

    async def stranger(self) -> AgentHandle:
        """Another user's agent."""
        ...

    def gate(self) -> tuple[str, Gate]:
        """A gate for `GATE <name> 1 3`, and its name."""
        ...

    async def ended(self, agent: AgentHandle, run_id: str) -> None:
        """Return when the run is over."""
        ...


class ScriptedAgents:
    """FakeAgentGateway, answering the directives ECHO, ERR, CALL, CALLS and GATE."""

    def __init__(self) -> None:
        self.gateway = FakeAgentGateway(answer=self._answer, pace=self._pace)
        self._gate = Gate()

    async def aclose(self) -> None:
        await self.gateway.aclose()

    async def fresh(self) -> AgentHandle:
        return AgentHandle("member-1", "agent-1", f"conversation-{uuid.uuid4()}")

    async def stranger(self) -> AgentHandle:
        return AgentHandle("member-2", "agent-2", f"conversation-{uuid.uuid4()}")

    def gate(self) -> tuple[str, Gate]:
        self._gate = Gate()
        return "gate", self._gate

    async def ended(self, agent: AgentHandle, run_id: str) -> None:
        await self.gateway.settled()

    async def _pace(self, seconds: float) -> None:
        await (self._gate.pass_through() if seconds else asyncio.sleep(0))

    @staticmethod
    def _answer(messages: Sequence[OutgoingMessage]) -> Reply:
        directive = last_directive(messages[-1].content)
        assert directive is not None
        match directive.name:
            case "ECHO":
                return Reply.of(directive.values["text"])
            case "ERR":
                return Reply(words=(), error=MODEL_FAILED)
            case "CALL":
                return Reply.of("done: remembered", tools=(_tool(directive.values["tool"]),))
            case "CALLS":
                tools = tuple(_tool(name, arguments) for name, arguments in directive.arguments)
                return Reply.of(f"done: {len(tools)} results", tools=tools)
            case "GATE":
                return Reply(words=("w0", " w1", " w2", " w3"), per_word=1.0)
        raise AssertionError(f"no such directive here: {directive.source}")


def _tool(name: str, arguments: Mapping[str, str] = MappingProxyType({})) -> Tool:
    """How a call of one of the real agent's memory tools goes; there is no block `nobody`."""
    fails = arguments.get("label") == "nobody"
    changes = name in ("memory_insert", "archival_memory_insert")
    return Tool(name, status="error" if fails else "success", changed_memory=changes and not fails)
