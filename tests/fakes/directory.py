"""AgentDirectory in memory: organizations are not unique by name; everything else is found or created once."""

import uuid
from dataclasses import dataclass, field

from pydantic import SecretStr

from server.adapters.letta.template import with_name
from server.ports import AgentGoneError, AgentHandle, AgentTemplate
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.database import Hook

HUMAN_CHARACTERS = 1_000


@dataclass(slots=True)
class Agent:
    id: str
    user_id: str
    name: str | None
    template: AgentTemplate
    human: str
    """The memory block about the user."""


@dataclass(slots=True)
class Member:
    id: str
    organization_id: str
    has_tools: bool = False
    provider_id: str | None = None
    key: str | None = None
    model_url: str | None = None
    agents: list[Agent] = field(default_factory=list)
    conversations: dict[str, str] = field(default_factory=dict)
    """Conversation id by agent id."""
    other_conversations: set[str] = field(default_factory=set)


@dataclass(slots=True)
class FakeDirectory:
    """Implements `server.ports.AgentDirectory`. `before` and `after` as in FakeBilling; `searches` counts the slow
    searches of all organizations."""

    before: Hook | None = None
    after: Hook | None = None
    organizations: dict[str, str] = field(default_factory=dict)
    """User id (the organization's name) by organization id."""
    members: dict[str, Member] = field(default_factory=dict)
    searches: int = 0

    async def create_organization(self, user_id: str) -> str:
        await self._reached("create_organization")
        organization_id = _new("org")
        self.organizations[organization_id] = user_id
        await self._answered("create_organization")
        return organization_id

    async def find_organization(self, user_id: str) -> str | None:
        await self._reached("find_organization")
        self.searches += 1
        found = next((id_ for id_, name in self.organizations.items() if name == user_id), None)
        await self._answered("find_organization")
        return found

    async def has_organization(self, organization_id: str) -> bool:
        await self._reached("has_organization")
        found = organization_id in self.organizations
        await self._answered("has_organization")
        return found

    async def ensure_member(self, organization_id: str, user_id: str, *, search: bool = True) -> str:
        await self._reached("ensure_member")
        if organization_id not in self.organizations:
            raise PlatformError(ErrorCode.NOT_FOUND)
        members = self.members.values() if search else ()
        member = next((one for one in members if one.organization_id == organization_id), None)
        if member is None:
            member = Member(_new("user"), organization_id)
            self.members[member.id] = member
        await self._answered("ensure_member")
        return member.id

    async def ensure_tools(self, member_id: str) -> None:
        await self._reached("ensure_tools")
        self._member(member_id).has_tools = True
        await self._answered("ensure_tools")

    async def ensure_provider(self, member_id: str, key: SecretStr, template: AgentTemplate) -> str:
        await self._reached("ensure_provider")
        member = self._member(member_id)
        member.provider_id = member.provider_id or _new("provider")
        member.key, member.model_url = key.get_secret_value(), template.model_url
        await self._answered("ensure_provider")
        return member.provider_id

    async def ensure_agent(
        self, member_id: str, user_id: str, name: str | None, template: AgentTemplate, *, known: str | None = None
    ) -> str:
        await self._reached("ensure_agent")
        member = self._member(member_id)
        agents = self._agents_of(member.organization_id)
        agent = next((one for one in agents if one.id == known), None)
        agent = agent or next((one for one in agents if one.user_id == user_id), None)
        if agent is None:
            if not member.has_tools:
                raise PlatformError(ErrorCode.INTERNAL_ERROR, "Tools not found by name.", retryable=False)
            agent = Agent(_new("agent"), user_id, name, template, f"User's name: {name or 'Friend'}")
            member.agents.append(agent)
        agent.template = template
        await self._answered("ensure_agent")
        return agent.id

    async def ensure_conversation(self, member_id: str, agent_id: str, *, known: str | None = None) -> str:
        await self._reached("ensure_conversation")
        conversation_id = self._member(member_id).conversations.setdefault(agent_id, _new("conv"))
        await self._answered("ensure_conversation")
        return conversation_id

    async def write_name(self, agent: AgentHandle, previous: str | None, name: str) -> None:
        await self._reached("write_name")
        found = self.agent(agent)
        text = with_name(found.human, previous, name)
        if len(text) > HUMAN_CHARACTERS:
            raise PlatformError(ErrorCode.TOO_LARGE)
        found.human = text
        await self._answered("write_name")

    async def begin_conversation(self, agent: AgentHandle) -> str:
        await self._reached("begin_conversation")
        member = self._holder(agent)
        member.other_conversations.add(member.conversations[agent.agent_id])
        begun = member.conversations[agent.agent_id] = _new("conv")
        await self._answered("begin_conversation")
        return begun

    async def delete_other_conversations(self, agent: AgentHandle) -> None:
        await self._reached("delete_other_conversations")
        member = self._holder(agent)
        member.conversations[agent.agent_id] = agent.conversation_id
        member.other_conversations.clear()
        await self._answered("delete_other_conversations")

    async def delete_everything(self, organization_id: str, member_id: str | None) -> None:
        await self._reached("delete_everything")
        self.members = {id_: one for id_, one in self.members.items() if one.organization_id != organization_id}
        self.organizations.pop(organization_id, None)
        await self._answered("delete_everything")

    def _holder(self, agent: AgentHandle) -> Member:
        member = self.members.get(agent.member_id)
        if member is None or all(one.id != agent.agent_id for one in member.agents):
            raise AgentGoneError
        return member

    def agent(self, handle: AgentHandle) -> Agent:
        """The agent as it is now."""
        return next(one for one in self._member(handle.member_id).agents if one.id == handle.agent_id)

    def _agents_of(self, organization_id: str) -> list[Agent]:
        """All members of an organization share its agents."""
        members = (one for one in self.members.values() if one.organization_id == organization_id)
        return [agent for member in members for agent in member.agents]

    def _member(self, member_id: str) -> Member:
        member = self.members.get(member_id)
        if member is None:
            raise PlatformError(ErrorCode.NOT_FOUND)
        return member

    async def _reached(self, operation: str) -> None:
        if self.before is not None:
            await self.before(operation)

    async def _answered(self, operation: str) -> None:
        if self.after is not None:
            await self.after(operation)


def _new(kind: str) -> str:
    return f"{kind}-{uuid.uuid4()}"
