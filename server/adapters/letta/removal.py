"""Deletes what Letta has of a user, object by object. Each call may be repeated: what is gone already is skipped.

Letta deletes agents with their messages, runs and steps, memory blocks, archives, members and organizations; it only
marks conversations and providers as deleted. A step without a run has no endpoint, and keeps its organization.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import structlog
from letta_client import AsyncLetta

from server.adapters.letta.client import LettaClient, delete_json, patch_json, rows
from server.adapters.letta.errors import RefusedError, none_if_missing
from server.ports import AgentHandle

log = structlog.get_logger(__name__)

DELETED: Final = "deleted user"
"""The name of an organization whose user was deleted: before that it is the user's id."""
DELETION_SECONDS: Final = 150.0
"""The deadline of one deletion. An agent with 3,000 runs took 14 s, since Letta deletes run by run."""
_PAGE: Final = 50
_CONTENTS: Final = ("/v1/agents/", "/v1/blocks/", "/v1/archives/", "/v1/providers/")
"""Agents first: blocks and archives are attached to them."""


class LettaRemoval:
    """The deletions part of `server.ports.AgentDirectory`. Raises PlatformError(letta_unavailable)."""

    def __init__(self, client: LettaClient) -> None:
        self._client = client

    async def delete_other_conversations(self, agent: AgentHandle) -> None:
        """See the port."""
        member = self._client.as_member(agent.member_id)
        await self._delete_all(
            member, "/v1/conversations/", agent_id=agent.agent_id, but=agent.conversation_id, strict=True
        )

    async def delete_everything(self, organization_id: str, member_id: str | None) -> None:
        """See the port. The member goes after what only a member may delete."""
        if member_id is not None:
            member = self._client.as_member(member_id)
            for path in _CONTENTS:
                await self._delete_all(member, path)
            await self._delete(self._client.as_admin(), "/v1/admin/users/", user_id=member_id)
        await self._delete_organization(organization_id)

    async def _delete_organization(self, organization_id: str) -> None:
        """Delete the organization, or where its steps prevent that, remove its name, which is the user's id."""
        admin = self._client.as_admin()
        rename = partial(patch_json, admin, f"/v1/admin/orgs/?org_id={organization_id}", {"name": DELETED})
        if await self._if_exists(rename) is None:
            return
        try:
            await self._delete(admin, "/v1/admin/orgs/", org_id=organization_id)
        except RefusedError as refusal:
            log.info("letta.organization_kept", organization_id=organization_id, status=refusal.status)

    async def _delete_all(
        self, member: AsyncLetta, path: str, *, but: str | None = None, strict: bool = False, **query: str
    ) -> None:
        """Delete every object of a list but one. A list that does not exist, since its member does not, is empty,
        unless `strict`."""
        gone: set[str] = set()
        while True:
            listing = self._client.read(member, path, rows("id"), limit=_PAGE + len(gone), **query)
            found = await (listing if strict else none_if_missing(listing)) or []
            left = [row["id"] for row in found if row["id"] not in gone and row["id"] != but]
            if not left:
                return
            for object_id in left:
                await self._delete(member, f"{path}{object_id}")
                gone.add(object_id)

    async def _delete(self, client: AsyncLetta, path: str, **query: str) -> None:
        await self._if_exists(partial(delete_json, client, path, query, timeout=DELETION_SECONDS))

    async def _if_exists(self, call: Callable[[], Awaitable[Any]]) -> object | None:
        """Make an idempotent call. None: Letta answers that the object does not exist."""

        async def made() -> object:
            await call()
            return True

        return await none_if_missing(self._client.repeatable(made, deadline=DELETION_SECONDS))
