"""CredentialStore on the service-role SQL functions: API keys, and the sessions of Supabase Auth."""

import json
from collections.abc import Sequence
from typing import Final

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.outcomes import granted
from server.adapters.supabase.rows import api_key_of, time_of
from server.ports import ApiKey, Credential, NewApiKey, SignIn, StoredApiKey

_ASKED_AT_ONCE: Final = 500


class SupabaseCredentials:
    """Implements `server.ports.CredentialStore`."""

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client

    async def create_key(self, new: NewApiKey, most: int) -> ApiKey:
        """See the port. Not repeated: the key would be refused as a duplicate, and its user would not see it."""
        answer = await self._client.call(
            "create_api_key",
            repeat=False,
            user_id=new.user_id,
            name=new.name,
            prefix=new.prefix,
            secret_hash=new.secret_hash,
            scopes=sorted(new.scopes),
            expires_at=None if new.expires_at is None else new.expires_at.isoformat(),
            most=most,
        )
        return api_key_of(granted(answer, new.user_id)["key"])

    async def revoke_key(self, user_id: str, key_id: str) -> bool:
        revoked: bool = await self._client.call("revoke_api_key", user_id=user_id, key_id=key_id)
        return revoked

    async def find_key(self, prefix: str) -> StoredApiKey | None:
        row = await self._client.call("find_api_key", prefix=prefix)
        if row is None:
            return None
        return StoredApiKey(
            api_key_of(row), row["user_id"], row["email"] or "", row["secret_hash"], row["is_anonymous"]
        )

    async def record_key_use(self, key_id: str) -> None:
        await self._client.call("note_api_key_use", key_id=key_id)

    async def ended(self, credentials: Sequence[Credential]) -> set[Credential]:
        found: set[Credential] = set()
        for first in range(0, len(credentials), _ASKED_AT_ONCE):
            asked = credentials[first : first + _ASKED_AT_ONCE]
            positions = await self._client.call("ended_credentials", credentials=json.dumps([*map(_wire, asked)]))
            found.update(asked[position] for position in positions)
        return found

    async def sign_ins(self, user_id: str) -> list[SignIn]:
        return [
            SignIn(
                id=row["id"],
                created_at=time_of(row["created_at"]),
                last_seen_at=time_of(row["last_seen_at"]),
                user_agent=row["user_agent"],
                address=row["address"],
            )
            for row in await self._client.call("list_sign_ins", user_id=user_id)
        ]

    async def end_sign_in(self, user_id: str, session_id: str) -> bool:
        ended: bool = await self._client.call("end_sign_in", user_id=user_id, session_id=session_id)
        return ended


def _wire(credential: Credential) -> dict[str, str | None]:
    return {
        "user_id": credential.user_id,
        "session_id": credential.session_id,
        "key_id": credential.key_id,
    }
