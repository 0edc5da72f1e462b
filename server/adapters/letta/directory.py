"""Creates a user's agent at Letta, in an organization of its own, so that users share neither data nor model keys.

Each step may be repeated: it searches before it creates. The two are not atomic at Letta, so only the holder of the
user's provisioning claim may call these.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

from letta_client import AsyncLetta
from pydantic import SecretStr

from server.adapters.letta.client import LettaClient, patch_json, post_json, rows
from server.adapters.letta.errors import RefusedError, none_if_missing
from server.adapters.letta.memory import LettaMemory, agent_gone_if_missing
from server.adapters.letta.removal import LettaRemoval
from server.adapters.letta.template import (
    AGENT_TYPE,
    HUMAN,
    PROVIDER,
    TOOLS,
    matches_template,
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
        return await self._create(self._client.as_admin(), "/v1/admin/orgs/", {"name": user_id})

    async def find_organization(self, user_id: str) -> str | None:
        """See the port. Letta can only list organizations, page by page, not find one by name."""
        async for organization in self._all("/v1/admin/orgs/", "name"):
            if organization["name"] == user_id:
                return str(organization["id"])
        return None

    async def has_organization(self, organization_id: str) -> bool:
        """See the port. Letta cannot find one by id, but refuses to list those after one that it does not have."""
        listed = self._client.read(
            self._client.as_admin(), "/v1/admin/orgs/", rows("id"), after=organization_id, limit=1
        )
        return await none_if_missing(listed) is not None

    async def ensure_member(self, organization_id: str, user_id: str, *, search: bool = True) -> str:
        """The organization's member, created if there is none. `search=False` if there cannot be one yet: the search
        reads all members of all organizations."""
        if search and (found := await self._find_member(organization_id)) is not None:
            return found
        body = {"name": user_id, "organization_id": organization_id}
        return await self._create(self._client.as_admin(), "/v1/admin/users/", body)

    async def _find_member(self, organization_id: str) -> str | None:
        async for member in self._all("/v1/admin/users/", "organization_id"):
            if member["organization_id"] == organization_id:
                return str(member["id"])
        return None

    async def ensure_tools(self, member_id: str) -> None:
        """Letta's own tools, which a new organization lacks."""
        member = self._client.as_member(member_id)
        await self._client.repeatable(lambda: post_json(member, "/v1/tools/add-base-tools"))

    async def ensure_provider(self, member_id: str, key: SecretStr, template: AgentTemplate) -> str:
        """The organization's one model provider, with this key and address, which the next model call uses."""
        connection = {"api_key": key.get_secret_value(), "base_url": template.model_url}
        found = await self._provider(member_id)
        if found is None:
            try:
                return await self._create_provider(member_id, connection)
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
        """See the port. The memory of an existing agent does not change."""
        agents = self._client.as_member(member_id).agents
        tag = f"user:{user_id}"

        async def find_known() -> tuple[str, bool]:
            agent = await agents.retrieve(str(known), include=["agent.tools"])
            return agent.id, matches_template(template, agent)

        async def find() -> tuple[str, bool] | None:
            page = await agents.list(tags=[tag], match_all_tags=True, include=["agent.tools"], order="asc", limit=1)
            return (page.items[0].id, matches_template(template, page.items[0])) if page.items else None

        async def create() -> str:
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

        found = await self._find_twice(find_known) if known else None
        found = found or await self._client.repeatable(find)
        if found is None:
            return await self._client.once(create)
        agent_id, is_current = found
        if not is_current:
            await self._update(member_id, agent_id, template)
        return agent_id

    async def ensure_conversation(self, member_id: str, agent_id: str, *, known: str | None = None) -> str:
        """See the port."""
        conversations = self._client.as_member(member_id).conversations

        async def agent_of_known() -> str:
            return (await conversations.retrieve(str(known))).agent_id

        async def find() -> str | None:
            found = await conversations.list(agent_id=agent_id, order="asc", limit=1)
            return found[0].id if found else None

        async def create() -> str:
            return (await conversations.create(agent_id=agent_id)).id

        if known and await self._find_twice(agent_of_known) == agent_id:
            return known
        if (found := await self._client.repeatable(find)) is not None:
            return found
        return await self._client.once(create)

    async def write_name(self, agent: AgentHandle, previous: str | None, name: str) -> None:
        """See the port. Writes nothing if there is no block about the user; only an operator can remove it."""
        memory = LettaMemory(self._client)
        human = next((block for block in await memory.blocks(agent) if block.label == HUMAN), None)
        if human is not None and (text := with_name(human.value, previous, name)) != human.value:
            await memory.update_block(agent, HUMAN, text)

    async def begin_conversation(self, agent: AgentHandle) -> str:
        """See the port."""
        conversations = self._client.as_member(agent.member_id).conversations

        async def create() -> str:
            return (await conversations.create(agent_id=agent.agent_id)).id

        with agent_gone_if_missing():
            return await self._client.once(create)

    async def delete_other_conversations(self, agent: AgentHandle) -> None:
        """See the port. Letta only marks them, and their messages, as deleted: docs/operations.md has the statement
        that removes them."""
        await LettaRemoval(self._client).delete_other_conversations(agent)

    async def delete_everything(self, organization_id: str, member_id: str | None) -> None:
        """See the port. Where turns were run, the rows of the organization and its provider stay, without name and
        key: docs/operations.md has the statement that removes them."""
        if member_id is None:
            member_id = await self._find_member(organization_id)
        await LettaRemoval(self._client).delete_everything(organization_id, member_id)

    async def _find_twice(self, find: Callable[[], Awaitable[T]]) -> T | None:
        """The result of `find`; None if Letta answers twice, with a pause between, that the object does not exist."""
        found = await none_if_missing(self._client.repeatable(find))
        if found is None:
            await asyncio.sleep(self._client.timeouts.recheck)
            found = await none_if_missing(self._client.repeatable(find))
        return found

    async def _provider(self, member_id: str) -> str | None:
        found = await self._client.read(self._client.as_member(member_id), "/v1/providers/", rows("id"), name=PROVIDER)
        return str(found[0]["id"]) if found else None

    async def _create_provider(self, member_id: str, connection: dict[str, str]) -> str:
        body = {"name": PROVIDER, "provider_type": "openai", **connection}
        return await self._create(self._client.as_member(member_id), "/v1/providers/", body)

    async def _create(self, client: AsyncLetta, path: str, body: dict[str, str]) -> str:
        """Create an object, without retries. Returns its id."""

        async def create() -> str:
            return str((await post_json(client, path, body))["id"])

        return await self._client.once(create)

    async def _update(self, member_id: str, agent_id: str, template: AgentTemplate) -> None:
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
