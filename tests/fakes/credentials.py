"""CredentialStore in memory: the same rules as the SQL functions."""

import uuid
from collections.abc import Sequence
from dataclasses import replace

from server.ports import ApiKey, Credential, NewApiKey, SignIn, SignInDevice, StoredApiKey
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.database import MemoryDatabase


class FakeCredentials:
    """Implements `server.ports.CredentialStore` on a MemoryDatabase."""

    def __init__(self, database: MemoryDatabase) -> None:
        self.database = database

    async def create_key(self, new: NewApiKey, most: int) -> ApiKey:
        await self.database.reached("create_key")
        self.database.profile(new.user_id).account.refuse_closed()
        for stored in self._of(new.user_id):
            if not self._is_valid(stored.key):
                del self.database.api_keys[stored.key.id]
        if len(self._of(new.user_id)) >= most:
            raise PlatformError(ErrorCode.TOO_MANY_KEYS)
        now = self.database.clock()
        key = ApiKey(str(uuid.uuid4()), new.name, new.prefix, new.scopes, now, new.expires_at, None)
        email = self.database.users[new.user_id]
        self.database.api_keys[key.id] = StoredApiKey(key, new.user_id, email, new.secret_hash)
        await self.database.answered("create_key")
        return key

    async def revoke_key(self, user_id: str, key_id: str) -> bool:
        await self.database.reached("revoke_key")
        stored = self.database.api_keys.get(key_id)
        if stored is None or stored.user_id != user_id:
            return False
        del self.database.api_keys[key_id]
        return True

    async def find_key(self, prefix: str) -> StoredApiKey | None:
        await self.database.reached("find_key")
        found = (stored for stored in self.database.api_keys.values() if stored.key.prefix == prefix)
        stored = next(found, None)
        if stored is None or not self._is_valid(stored.key) or stored.user_id in self.database.banned:
            return None
        return replace(stored, is_anonymous=stored.user_id in self.database.anonymous)

    async def record_key_use(self, key_id: str) -> None:
        await self.database.reached("record_key_use")
        if (stored := self.database.api_keys.get(key_id)) is not None:
            used = replace(stored.key, last_used_at=self.database.clock())
            self.database.api_keys[key_id] = replace(stored, key=used)

    async def ended(self, credentials: Sequence[Credential]) -> set[Credential]:
        await self.database.reached("ended")
        return {credential for credential in credentials if self._has_ended(credential)}

    async def sign_ins(self, user_id: str) -> list[SignIn]:
        await self.database.reached("sign_ins")
        ids = [key for key, owner in self.database.sign_ins.items() if owner == user_id]
        now = self.database.clock()
        devices = [self.database.devices.get(key, SignInDevice(key, None, None)) for key in ids]
        return [SignIn(one.session_id or "", now, now, one.user_agent, one.address) for one in reversed(devices)]

    async def end_sign_in(self, user_id: str, session_id: str) -> bool:
        await self.database.reached("end_sign_in")
        if self.database.sign_ins.get(session_id) != user_id:
            return False
        del self.database.sign_ins[session_id]
        return True

    def _of(self, user_id: str) -> list[StoredApiKey]:
        return [stored for stored in self.database.api_keys.values() if stored.user_id == user_id]

    def _is_valid(self, key: ApiKey) -> bool:
        return key.expires_at is None or key.expires_at > self.database.clock()

    def _has_ended(self, credential: Credential) -> bool:
        user_id, session_id, key_id = credential.user_id, credential.session_id, credential.key_id
        if user_id not in self.database.users or user_id in self.database.banned:
            return True
        if session_id is not None and self.database.sign_ins.get(session_id) != user_id:
            return True
        stored = None if key_id is None else self.database.api_keys.get(key_id)
        return key_id is not None and (stored is None or stored.user_id != user_id or not self._is_valid(stored.key))
