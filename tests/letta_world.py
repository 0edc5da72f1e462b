"""A real Letta with agents of its own whose model is scripted by the test, in the test's own process."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web
from pydantic import SecretStr

from server.adapters.letta.client import LettaClient
from server.adapters.letta.directory import LettaDirectory
from server.adapters.letta.gateway import LettaGateway
from server.adapters.letta.memory import LettaMemory
from server.adapters.letta.template import agent_template
from server.ports import AgentEvent, AgentHandle, AgentTemplate, OutgoingMessage, TextDelta
from server.protocol.codes import ErrorCode
from server.resilience import Breaker
from tests.scripted_model import Gate, Script, Seen, create_app
from tests.stack.chat_client import TIMEOUT

MODEL = "gpt-4"


@dataclass(frozen=True, slots=True)
class LettaWorld:
    """`template` gives every agent the scripted model."""

    client: LettaClient
    script: Script
    template: AgentTemplate
    agent: AgentHandle

    @property
    def gateway(self) -> LettaGateway:
        return LettaGateway(self.client)

    @property
    def memory(self) -> LettaMemory:
        return LettaMemory(self.client)

    @property
    def directory(self) -> LettaDirectory:
        return LettaDirectory(self.client)

    async def fresh(self) -> AgentHandle:
        """The same agent in a conversation of its own."""
        conversations = self.client.as_member(self.agent.member_id).conversations
        made = await conversations.create(agent_id=self.agent.agent_id)
        return replace(self.agent, conversation_id=made.id)

    async def stranger(self, key: str = "sk-stranger") -> AgentHandle:
        """Another user's agent."""
        return await make_agent(self.directory, self.template, key)

    async def say(self, agent: AgentHandle, *texts: str) -> list[AgentEvent]:
        """One turn, to its end."""
        async with self.gateway.send(agent, [OutgoingMessage("user", text) for text in texts]) as events:
            return [event async for event in events]

    def gate(self) -> tuple[str, Gate]:
        """A gate that no other test uses, and its name."""
        name = f"gate-{uuid.uuid4().hex}"
        return name, self.script.gate(name)

    def asked(self, text: str) -> Seen:
        """The last request that the model got with `text` in its last user message."""
        return next(seen for seen in reversed(self.script.seen) if text in seen.text)

    async def ended(self, agent: AgentHandle, run_id: str) -> None:
        """Return when the run has ended."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                run = await self.gateway.run(agent, run_id)
                if run is None or run.status != "running":
                    return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def letta_world(env: dict[str, str]) -> AsyncIterator[LettaWorld]:
    """The Letta of a running stack, and one agent there."""
    script = Script()
    runner = web.AppRunner(create_app(script), handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    client = LettaClient(
        env["LETTA_BASE_URL"], SecretStr(env["LETTA_API_TOKEN"]), Breaker("letta", ErrorCode.LETTA_UNAVAILABLE)
    )
    try:
        template = agent_template(MODEL, f"http://{host}:{port}/v1", 32_000)
        agent = await make_agent(LettaDirectory(client), template, "sk-first")
        yield LettaWorld(client, script, template, agent)
    finally:
        await client.aclose()
        await runner.cleanup()


async def make_agent(directory: LettaDirectory, template: AgentTemplate, key: str) -> AgentHandle:
    """Every step of making a user's agent."""
    user_id = str(uuid.uuid4())
    organization = await directory.create_organization(user_id)
    member = await directory.ensure_member(organization, user_id, search=False)
    await directory.ensure_tools(member)
    await directory.ensure_provider(member, SecretStr(key), template)
    agent = await directory.ensure_agent(member, user_id, "Ada", template)
    return AgentHandle(member, agent, await directory.ensure_conversation(member, agent))


def text_of(events: Sequence[AgentEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def read_until(events: AsyncIterator[AgentEvent], text: str) -> list[AgentEvent]:
    """The next events, up to the one that completes `text`. Words that arrive in one read are one event, so a test
    cannot say how many events that is."""
    seen: list[AgentEvent] = []
    async with asyncio.timeout(TIMEOUT):
        while text_of(seen) != text:
            seen.append(await anext(events))
    return seen


def prompt_of(seen: Seen) -> str:
    """The system prompt of a request."""
    return _content(seen.messages[0])


def roles_and_texts(seen: Seen) -> list[tuple[str, str]]:
    """The messages of a request after its system prompt."""
    return [(message["role"], _content(message)) for message in seen.messages[1:]]


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
