"""AccountStore in memory: profiles and the fenced provisioning claim on them, on the same rows as the sessions."""

from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, TypeVar

from server.ports import Account, AccountChange, FencedError, ProvisioningClaim, SignInDevice
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, TurnStatus
from tests.fakes.database import MemoryDatabase, ProfileRow

T = TypeVar("T")
RENEWED_BY_RECORD = timedelta(seconds=15)


class FakeAccountStore:
    """Implements `server.ports.AccountStore` on a MemoryDatabase."""

    def __init__(self, database: MemoryDatabase | None = None) -> None:
        self.database = database or MemoryDatabase()

    async def _apply(self, operation: str, change: Callable[[], T]) -> T:
        await self.database.reached(operation)
        result = change()
        await self.database.answered(operation)
        return result

    async def ensure(self, user_id: str, email: str, name: str | None) -> Account:
        return await self._apply("ensure", lambda: self._ensure(user_id, email, name))

    def _ensure(self, user_id: str, email: str, name: str | None) -> Account:
        row = self.database.profile(user_id, email, name)
        account = row.account
        email = self.database.users[user_id] or email
        name = account.name or name or self.database.name_at_auth(user_id)
        if (account.email, account.name) != (email, name):
            self._save(row, replace(account, email=email, name=name))
        return row.account

    async def get(self, user_id: str) -> Account | None:
        return await self._apply("get", lambda: self._get(user_id))

    def _get(self, user_id: str) -> Account | None:
        row = self.database.profiles.get(user_id)
        return row.account if row is not None else None

    async def claim(self, user_id: str, owner: str, seconds: float) -> ProvisioningClaim | None:
        return await self._apply("claim_provisioning", lambda: self._claim(user_id, owner, seconds))

    def _claim(self, user_id: str, owner: str, seconds: float) -> ProvisioningClaim | None:
        row, now = self.database.profile(user_id), self.database.clock()
        if row.claimed_until is not None and row.claimed_until > now and row.claimed_by != owner:
            return None
        row.claimed_by, row.claimed_until, row.fence = owner, now + timedelta(seconds=seconds), row.fence + 1
        return ProvisioningClaim(user_id, row.fence, row.account)

    async def record(self, claim: ProvisioningClaim, change: AccountChange) -> Account:
        return await self._apply("record", lambda: self._record(claim, change))

    def _record(self, claim: ProvisioningClaim, change: AccountChange) -> Account:
        row = self.database.profiles.get(claim.user_id)
        if row is None or row.claimed_by is None or row.fence != claim.fence:
            raise FencedError(claim.user_id)
        values: dict[str, Any] = {name: value for name, value in asdict(change).items() if value is not None}
        row.key_hash = values.pop("key_hash", row.key_hash)
        if row.key_hash is not None:
            self.database.key_hashes.setdefault(row.key_hash, claim.user_id)
        if row.account.agent_status.closed:
            values.pop("agent_status", None)
        for text in ("intent", "status_reason"):
            if text in values:
                values[text] = values[text] or None
        self._save(row, replace(row.account, **values))
        row.claimed_until = max(row.claimed_until or self.database.clock(), self.database.clock() + RENEWED_BY_RECORD)
        return row.account

    async def release(self, claim: ProvisioningClaim) -> None:
        await self._apply("release_provisioning", lambda: self._release(claim))

    def _release(self, claim: ProvisioningClaim) -> None:
        row = self.database.profiles.get(claim.user_id)
        if row is not None and row.fence == claim.fence:
            row.claimed_by = row.claimed_until = None

    async def incomplete(self, config_hash: str, limit: int) -> list[str]:
        return await self._apply("incomplete", lambda: self._incomplete(config_hash, limit))

    def _incomplete(self, config_hash: str, limit: int) -> list[str]:
        now = self.database.clock()
        rows = sorted(self.database.profiles.values(), key=lambda row: row.account.updated_at)
        return [
            row.account.user_id
            for row in rows
            if not row.account.agent_status.closed
            and (row.account.agent_status is not AgentStatus.ACTIVE or row.account.config_hash != config_hash)
            and (row.claimed_until is None or row.claimed_until <= now)
        ][:limit]

    async def outdated_customers(self, limit: int) -> list[str]:
        return await self._apply("outdated_customers", lambda: self._outdated_customers(limit))

    def _outdated_customers(self, limit: int) -> list[str]:
        now = self.database.clock()
        return [
            row.account.user_id
            for row in sorted(self.database.profiles.values(), key=lambda row: row.account.updated_at)
            if row.account.customer_ready
            and row.account.email != row.account.customer_email
            and not row.account.agent_status.closed
            and (row.claimed_until is None or row.claimed_until <= now)
        ][:limit]

    async def rename(self, user_id: str, name: str) -> Account:
        return await self._apply("rename", lambda: self._rename(user_id, name))

    def _rename(self, user_id: str, name: str) -> Account:
        row = self.database.profiles.get(user_id)
        if row is None:
            raise PlatformError(ErrorCode.NOT_FOUND)
        self._save(row, replace(row.account, name=name))
        return row.account

    def _save(self, row: ProfileRow, account: Account) -> None:
        row.account = replace(account, updated_at=self.database.clock())

    async def begin_deletion(self, user_id: str) -> None:
        await self._apply("begin_deletion", lambda: self._begin_deletion(user_id))

    def _begin_deletion(self, user_id: str) -> None:
        row = self.database.profile(user_id)
        if row.account.agent_status is not AgentStatus.DELETING:
            self.database.refuse_last_admin(user_id)
            self._save(row, replace(row.account, agent_status=AgentStatus.DELETING, status_reason=None))
        for open_row in [one for one in self.database.of_user(user_id) if one.open]:
            now = self.database.clock()
            asked = open_row.turn.cancel_requested_at or now
            open_row.turn = replace(open_row.turn, cancel_requested_at=asked)
            if open_row.turn.status is TurnStatus.QUEUED:
                open_row.turn = replace(open_row.turn, status=TurnStatus.CANCELLED, finished_at=now)

    async def unfinished_deletions(self, limit: int) -> list[str]:
        return await self._apply("unfinished_deletions", lambda: self._unfinished_deletions(limit))

    def _unfinished_deletions(self, limit: int) -> list[str]:
        now = self.database.clock()
        rows = sorted(self.database.profiles.values(), key=lambda row: row.account.updated_at)
        return [
            row.account.user_id
            for row in rows
            if row.account.agent_status is AgentStatus.DELETING
            and (row.claimed_until is None or row.claimed_until <= now)
        ][:limit]

    async def delete(self, user_id: str, *, keep_spend: bool) -> None:
        await self._apply("delete", lambda: self._delete(user_id, keep_spend))

    def _delete(self, user_id: str, keep_spend: bool) -> None:
        row = self.database.profiles.get(user_id)
        if row is None:
            return
        if row.account.agent_status is not AgentStatus.DELETING:
            raise FencedError(user_id)
        if keep_spend:
            spent = [entry for entry in self.database.ledger.values() if entry.user_id == user_id and entry.counted]
            self.database.deleted_usage += [replace(entry, user_id="", turn_id="", attempt=None) for entry in spent]
        self.database.delete_user(user_id)

    async def delete_history(self, user_id: str, conversation_id: str) -> None:
        await self._apply("delete_history", lambda: self._delete_history(user_id, conversation_id))

    def _delete_history(self, user_id: str, conversation_id: str) -> None:
        row = self.database.profile(user_id)
        row.account.refuse_closed()
        turns = self.database.of_user(user_id)
        if any(one.open for one in turns):
            raise PlatformError(ErrorCode.BUSY)
        for one in turns:
            one.content_hash, one.is_deleted, one.carried_by = "", True, one.carried_by or one.turn.id
            one.past_runs.clear()
            one.turn = replace(one.turn, run_id=None, error=None, reason=None)
        self._save(row, replace(row.account, conversation_id=conversation_id))

    async def known_addresses(self, email: str) -> list[str]:
        return await self._apply("known_addresses", lambda: self._known_addresses(email))

    def _known_addresses(self, email: str) -> list[str]:
        user_id = next((one for one, known in self.database.users.items() if known == email), "")
        return list(reversed(self.database.addresses.get(user_id, [])))

    async def record_sign_in(self, user_id: str, device: SignInDevice, address_hash: str | None) -> None:
        await self._apply("record_sign_in", lambda: self._record_sign_in(user_id, device, address_hash))

    def _record_sign_in(self, user_id: str, device: SignInDevice, address_hash: str | None) -> None:
        if user_id in self.database.profiles and address_hash is not None:
            before = [one for one in self.database.addresses.get(user_id, []) if one != address_hash]
            self.database.addresses[user_id] = [*before, address_hash][-20:]
        if device.session_id is not None and self.database.sign_ins.get(device.session_id) == user_id:
            self.database.devices[device.session_id] = device
