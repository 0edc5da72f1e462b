"""Making a user's agent at Letta: an organization of its own, so that neither data nor model keys are ever shared.

Each step may be repeated: it looks before it makes. Looking and making are not one atom at Letta, so only the holder
of the user's provisioning claim may call these.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

from pydantic import SecretStr

from server.letta_adapter.client import LettaClient, patch_json, post_json
from server.letta_adapter.errors import RefusedError
from server.letta_adapter.template import AGENT_TYPE, PROVIDER, TOOLS, follows, memory_blocks, model_config
from server.ports import AgentTemplate

_PAGE: Final = 1000


class LettaDirectory:
    """Implements `server.ports.AgentDirectory`."""

    def __init__(self, client: LettaClient) -> None:
        self._client = client

    async def create_organization(self, user_id: str) -> str:
        """Not repeatable: Letta's organizations are not unique by name. Raises PlatformError(letta_unavailable)."""
        admin = self._client.as_admin()
        made = await self._client.once(lambda: post_json(admin, "/v1/admin/orgs/", {"name": user_id}))
        return str(made["id"])

    async def find_organization(self, user_id: str) -> str | None:
        """See the port. Letta lists organizations by page and looks none up by name."""
        async for organization in self._all("/v1/admin/orgs/"):
            if organization["name"] == user_id:
                return str(organization["id"])
        return None

    async def ensure_member(self, organization_id: str, user_id: str, *, search: bool = True) -> str:
        """The organization's member, made if there is none. `search=False` where there cannot be one yet: the search
        goes through all members of all organizations."""
        if search:
            async for member in self._all("/v1/admin/users/"):
                if member["organization_id"] == organization_id:
                    return str(member["id"])
        body = {"name": user_id, "organization_id": organization_id}
        made = await self._client.once(lambda: post_json(self._client.as_admin(), "/v1/admin/users/", body))
        return str(made["id"])

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

    async def ensure_agent(self, member_id: str, user_id: str, name: str | None, template: AgentTemplate) -> str:
        """See the port. What an existing agent remembers is never touched."""
        agents = self._client.as_member(member_id).agents
        tag = f"user:{user_id}"
        found = await self._client.repeatable(
            lambda: agents.list(tags=[tag], match_all_tags=True, include=["agent.tools"], order="asc", limit=1)
        )
        if found.items:
            agent = found.items[0]
            if not follows(template, agent):
                await self._bring_up_to_date(member_id, agent.id, template)
            return agent.id
        made = await self._client.once(
            lambda: agents.create(
                name=f"agent-{user_id}",
                agent_type=AGENT_TYPE,
                tags=[tag],
                memory_blocks=memory_blocks(name),
                tools=list(TOOLS),
                include_base_tools=False,
                llm_config=model_config(template),
            )
        )
        return made.id

    async def ensure_conversation(self, member_id: str, agent_id: str) -> str:
        """The agent's first conversation, made if there is none."""
        conversations = self._client.as_member(member_id).conversations
        found = await self._client.repeatable(lambda: conversations.list(agent_id=agent_id, order="asc", limit=1))
        if found:
            return found[0].id
        return (await self._client.once(lambda: conversations.create(agent_id=agent_id))).id

    async def _provider(self, member_id: str) -> str | None:
        found = await self._client.read(self._client.as_member(member_id), "/v1/providers/", name=PROVIDER)
        return str(found[0]["id"]) if found else None

    async def _make_provider(self, member_id: str, connection: dict[str, str]) -> str:
        member = self._client.as_member(member_id)
        body = {"name": PROVIDER, "provider_type": "openai", **connection}
        made = await self._client.once(lambda: post_json(member, "/v1/providers/", body))
        return str(made["id"])

    async def _bring_up_to_date(self, member_id: str, agent_id: str, template: AgentTemplate) -> None:
        member = self._client.as_member(member_id)
        tools = await self._client.repeatable(lambda: member.tools.list(names=list(TOOLS), limit=len(TOOLS)))
        await self._client.repeatable(
            lambda: member.agents.update(
                agent_id, llm_config=model_config(template), tool_ids=[tool.id for tool in tools.items]
            )
        )

    async def _all(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Every row of an administrative list, oldest first."""
        after: dict[str, str | int] = {}
        while page := await self._client.read(self._client.as_admin(), path, limit=_PAGE, **after):
            for row in page:
                yield row
            after = {"after": page[-1]["id"]}
