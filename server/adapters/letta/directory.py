"""Making a user's agent at Letta: an organization of its own, so that neither data nor model keys are ever shared.

Each step may be repeated: it looks before it makes. Looking and making are not one atom at Letta, so only the holder
of the user's provisioning claim may call these.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

from letta_client import AsyncLetta
from pydantic import SecretStr

from server.adapters.letta.client import LettaClient, patch_json, post_json, rows
from server.adapters.letta.errors import RefusedError
from server.adapters.letta.memory import LettaMemory
from server.adapters.letta.template import (
    AGENT_TYPE,
    HUMAN,
    PROVIDER,
    TOOLS,
    follows,
    memory_blocks,
    model_config,
    with_name,
)
from server.ports import AgentHandle, AgentTemplate

T = TypeVar("T")

_PAGE: Final = 1000


class LettaDirectory:
    """Implements `server.ports.AgentDirectory`."""

    def __init__(self, client: LettaClient) -> None:
        self._client = client

    async def create_organization(self, user_id: str) -> str:
        """Not repeatable: Letta's organizations are not unique by name. Raises PlatformError(letta_unavailable)."""
        return await self._make(self._client.as_admin(), "/v1/admin/orgs/", {"name": user_id})

    async def find_organization(self, user_id: str) -> str | None:
        """See the port. Letta lists organizations by page and looks none up by name."""
        async for organization in self._all("/v1/admin/orgs/", "name"):
            if organization["name"] == user_id:
                return str(organization["id"])
        return None

    async def has_organization(self, organization_id: str) -> bool:
        """See the port. Letta looks none up by id, but refuses to list what comes after one that it does not have."""
        listed = self._client.read(
            self._client.as_admin(), "/v1/admin/orgs/", rows("id"), after=organization_id, limit=1
        )
        return await _unless_gone(listed) is not None

    async def ensure_member(self, organization_id: str, user_id: str, *, search: bool = True) -> str:
        """The organization's member, made if there is none. `search=False` where there cannot be one yet: the search
        goes through all members of all organizations."""
        if search:
            async for member in self._all("/v1/admin/users/", "organization_id"):
                if member["organization_id"] == organization_id:
                    return str(member["id"])
        body = {"name": user_id, "organization_id": organization_id}
        return await self._make(self._client.as_admin(), "/v1/admin/users/", body)

    async def ensure_tools(self, member_id: str) -> None:
        """Letta's own tools, which a new organization lacks."""
        member = self._client.as_member(member_id)
        await self._client.repeatable(lambda: post_json(member, "/v1/tools/add-base-tools"))

    async def ensure_provider(self, member_id: str, key: SecretStr, template: AgentTemplate) -> str:
        """The organization's one model provider, with this key and address. They hold from the next model call on."""
        connection = {"api_key": key.get_secret_value(), "base_url": template.model_url}
        found = await self._provider(member_id)
        if found is None:
            try:
                return await self._make_provider(member_id, connection)
            except RefusedError as refusal:
                found = await self._provider(member_id) if refusal.status == 409 else None
                if found is None:
                    raise
        member, path = self._client.as_member(member_id), f"/v1/providers/{found}"
        await self._client.repeatable(lambda: patch_json(member, path, connection))
        return found

    async def ensure_agent(
        self, member_id: str, user_id: str, name: str | None, template: AgentTemplate, *, known: str | None = None
    ) -> str:
        """See the port. What an existing agent remembers is never touched."""
        agents = self._client.as_member(member_id).agents
        tag = f"user:{user_id}"

        async def find_known() -> tuple[str, bool]:
            agent = await agents.retrieve(str(known), include=["agent.tools"])
            return agent.id, follows(template, agent)

        async def find() -> tuple[str, bool] | None:
            page = await agents.list(tags=[tag], match_all_tags=True, include=["agent.tools"], order="asc", limit=1)
            return (page.items[0].id, follows(template, page.items[0])) if page.items else None

        async def make() -> str:
            made = await agents.create(
                name=f"agent-{user_id}",
                agent_type=AGENT_TYPE,
                tags=[tag],
                memory_blocks=memory_blocks(name),
                tools=list(TOOLS),
                include_base_tools=False,
                llm_config=model_config(template),
            )
            return made.id

        found = await self._still_there(find_known) if known else None
        found = found or await self._client.repeatable(find)
        if found is None:
            return await self._client.once(make)
        agent_id, up_to_date = found
        if not up_to_date:
            await self._bring_up_to_date(member_id, agent_id, template)
        return agent_id

    async def ensure_conversation(self, member_id: str, agent_id: str, *, known: str | None = None) -> str:
        """See the port."""
        conversations = self._client.as_member(member_id).conversations

        async def agent_of_known() -> str:
            return (await conversations.retrieve(str(known))).agent_id

        async def find() -> str | None:
            found = await conversations.list(agent_id=agent_id, order="asc", limit=1)
            return found[0].id if found else None

        async def make() -> str:
            return (await conversations.create(agent_id=agent_id)).id

        if known and await self._still_there(agent_of_known) == agent_id:
            return known
        if (found := await self._client.repeatable(find)) is not None:
            return found
        return await self._client.once(make)

    async def write_name(self, agent: AgentHandle, told: str | None, name: str) -> None:
        """See the port. Without a block about the user, which only an operator can have removed, nothing is written."""
        memory = LettaMemory(self._client)
        human = next((block for block in await memory.blocks(agent) if block.label == HUMAN), None)
        if human is not None and (text := with_name(human.value, told, name)) != human.value:
            await memory.update_block(agent, HUMAN, text)

    async def _still_there(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """What `ask` finds; None where Letta says twice, some time apart, that it does not have it."""
        found = await _unless_gone(self._client.repeatable(ask))
        if found is None:
            await asyncio.sleep(self._client.patience.doubt)
            found = await _unless_gone(self._client.repeatable(ask))
        return found

    async def _provider(self, member_id: str) -> str | None:
        found = await self._client.read(self._client.as_member(member_id), "/v1/providers/", rows("id"), name=PROVIDER)
        return str(found[0]["id"]) if found else None

    async def _make_provider(self, member_id: str, connection: dict[str, str]) -> str:
        body = {"name": PROVIDER, "provider_type": "openai", **connection}
        return await self._make(self._client.as_member(member_id), "/v1/providers/", body)

    async def _make(self, client: AsyncLetta, path: str, body: dict[str, str]) -> str:
        """Create something, once. Its id."""

        async def make() -> str:
            return str((await post_json(client, path, body))["id"])

        return await self._client.once(make)

    async def _bring_up_to_date(self, member_id: str, agent_id: str, template: AgentTemplate) -> None:
        member = self._client.as_member(member_id)

        async def find_tools() -> list[str]:
            return [tool.id for tool in (await member.tools.list(names=list(TOOLS), limit=len(TOOLS))).items]

        tool_ids = await self._client.repeatable(find_tools)
        await self._client.repeatable(
            lambda: member.agents.update(agent_id, llm_config=model_config(template), tool_ids=tool_ids)
        )

    async def _all(self, path: str, *fields: str) -> AsyncIterator[dict[str, Any]]:
        """Every row of an administrative list, oldest first, with its `id` and these fields."""
        after: dict[str, str | int] = {}
        while page := await self._client.read(self._client.as_admin(), path, rows("id", *fields), limit=_PAGE, **after):
            for row in page:
                yield row
            after = {"after": page[-1]["id"]}


async def _unless_gone(call: Awaitable[T]) -> T | None:
    """Its result; None where Letta answers that what was asked for does not exist."""
    try:
        return await call
    except RefusedError as refusal:
        if refusal.status == 404:
            return None
        raise
