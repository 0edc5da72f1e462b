"""AccountStore on the service-role SQL functions: profiles and the fenced claim under which they are provisioned."""

import json
from dataclasses import asdict

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.outcomes import granted
from server.adapters.supabase.probe import NIL_ID
from server.adapters.supabase.rows import account_of
from server.ports import Account, AccountChange, ProvisioningClaim, SignInDevice

COLUMNS = {
    "agent_status": "agent_status",
    "status_reason": "status_reason",
    "encrypted_key": "litellm_key",
    "key_hash": "litellm_key_hash",
    "customer_ready": "customer_ready",
    "key_ready": "key_ready",
    "organization_id": "letta_organization_id",
    "member_id": "letta_member_id",
    "tools_ready": "tools_ready",
    "provider_id": "letta_provider_id",
    "agent_id": "letta_agent_id",
    "conversation_id": "letta_conversation_id",
    "told_name": "told_name",
    "customer_email": "customer_email",
    "config_hash": "config_hash",
    "intent": "intent",
    "plan": "plan",
}
"""Field of an AccountChange → column of user_profiles."""


class SupabaseAccountStore:
    """Implements `server.ports.AccountStore`."""

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client

    async def ensure(self, user_id: str, email: str, name: str | None) -> Account:
        answer = await self._client.call("ensure_profile", user_id=user_id, email=email, name=name)
        return account_of(granted(answer, user_id)["account"])

    async def get(self, user_id: str) -> Account | None:
        row = await self._client.call("get_profile", user_id=user_id)
        return None if row is None else account_of(row)

    async def claim(self, user_id: str, owner: str, seconds: float) -> ProvisioningClaim | None:
        answer = await self._client.call("claim_provisioning", user_id=user_id, owner=owner, seconds=seconds)
        if granted(answer, user_id)["outcome"] == "held":
            return None
        row = answer["account"]
        return ProvisioningClaim(user_id, row["provisioning_fence"], account_of(row))

    async def record(self, claim: ProvisioningClaim, change: AccountChange) -> Account:
        values = {column: getattr(change, field) for field, column in COLUMNS.items()}
        patch = json.dumps({column: value for column, value in values.items() if value is not None})
        answer = await self._client.call("record_provisioning", user_id=claim.user_id, fence=claim.fence, patch=patch)
        return account_of(granted(answer, claim.user_id)["account"])

    async def release(self, claim: ProvisioningClaim) -> None:
        await self._client.call("release_provisioning", user_id=claim.user_id, fence=claim.fence)

    async def incomplete(self, config_hash: str, limit: int) -> list[str]:
        users: list[str] = await self._client.call("incomplete_profiles", config_hash=config_hash, limit=limit)
        return users

    async def outdated_customers(self, limit: int) -> list[str]:
        users: list[str] = await self._client.call("outdated_customers", limit=limit)
        return users

    async def page(self, after: str | None, limit: int) -> list[Account]:
        """All accounts in the order of their ids, for operators; not in the port. `after` is the last id seen."""
        rows = await self._client.inspect(
            lambda service: (
                service.table("user_profiles").select("*").gt("id", after or NIL_ID).order("id").limit(limit)
            )
        )
        return [account_of(row) for row in rows]

    async def rename(self, user_id: str, name: str) -> Account:
        answer = await self._client.call("rename_profile", user_id=user_id, name=name)
        return account_of(granted(answer, user_id)["account"])

    async def begin_deletion(self, user_id: str) -> None:
        granted(await self._client.call("begin_deletion", user_id=user_id), user_id)

    async def unfinished_deletions(self, limit: int) -> list[str]:
        users: list[str] = await self._client.call("unfinished_deletions", limit=limit)
        return users

    async def delete(self, user_id: str, *, keep_spend: bool) -> None:
        granted(await self._client.call("delete_user", user_id=user_id, keep_spend=keep_spend), user_id)

    async def delete_history(self, user_id: str, conversation_id: str) -> None:
        answer = await self._client.call("delete_history", user_id=user_id, conversation_id=conversation_id)
        granted(answer, user_id)

    async def known_addresses(self, email: str) -> list[str]:
        hashes: list[str] = await self._client.call("known_addresses", email=email)
        return hashes

    async def record_sign_in(self, user_id: str, device: SignInDevice, address_hash: str | None) -> None:
        await self._client.call("record_sign_in", user_id=user_id, **asdict(device), address_hash=address_hash)
