"""A user's account, and the claim under which it is provisioned."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from server.ports.agent import AgentHandle
from server.ports.credentials import SignInDevice
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus, User


@dataclass(frozen=True, slots=True)
class Account:
    """A user's profile row with the results of provisioning so far. `encrypted_key` is `v1:…`, never plaintext.

    `intent` names a step that was begun and whose result is not recorded yet, `told_name` the name that was last
    written to the agent, `customer_email` the address that the billing customer was given. `plan`: the name of the
    user's plan; None if it was not given one yet, or was changed by hand. `is_admin`: by the metadata that only the
    project writes, never by what the user writes.
    """

    user_id: str
    email: str
    name: str | None
    agent_status: AgentStatus
    status_reason: str | None
    encrypted_key: str | None
    customer_ready: bool
    key_ready: bool
    organization_id: str | None
    member_id: str | None
    tools_ready: bool
    provider_id: str | None
    agent_id: str | None
    conversation_id: str | None
    told_name: str | None
    customer_email: str | None
    config_hash: str | None
    intent: str | None
    created_at: datetime
    updated_at: datetime
    plan: str | None = None
    is_admin: bool = False

    def refuse_closed(self) -> None:
        """Raises PlatformError(account_blocked) if the account was blocked or is being deleted."""
        if self.agent_status is AgentStatus.DELETING:
            raise PlatformError(ErrorCode.ACCOUNT_BLOCKED, "This account is being deleted.")
        if self.agent_status.closed:
            raise PlatformError(ErrorCode.ACCOUNT_BLOCKED)

    @property
    def handle(self) -> AgentHandle | None:
        """The agent, once every part of it exists."""
        if self.member_id and self.agent_id and self.conversation_id:
            return AgentHandle(self.member_id, self.agent_id, self.conversation_id)
        return None

    @property
    def user(self) -> User:
        return User(self.user_id, self.email, self.name, self.agent_status, self.created_at)


@dataclass(frozen=True, slots=True)
class AccountChange:
    """Fields of an account to set; None leaves a field as it is, `""` clears `intent` or `status_reason`.

    No change ends the status of a blocked or deleted account.
    """

    agent_status: AgentStatus | None = None
    status_reason: str | None = None
    encrypted_key: str | None = None
    key_hash: str | None = None
    customer_ready: bool | None = None
    key_ready: bool | None = None
    organization_id: str | None = None
    member_id: str | None = None
    tools_ready: bool | None = None
    provider_id: str | None = None
    agent_id: str | None = None
    conversation_id: str | None = None
    told_name: str | None = None
    customer_email: str | None = None
    config_hash: str | None = None
    intent: str | None = None
    plan: str | None = None


@dataclass(frozen=True, slots=True)
class ProvisioningClaim:
    """The right to provision one user. Changes with an older fence are refused."""

    user_id: str
    fence: int
    account: Account


class AccountStore(Protocol):
    """Profiles and the provisioning claim on them (service role)."""

    async def ensure(self, user_id: str, email: str, name: str | None) -> Account:
        """The user's profile, created as `provisioning` if it does not exist.

        Its address is the identity provider's; `email` counts only if that has none. A profile without a name gets
        `name`, or else the name of the user's sign-up at the identity provider."""
        ...

    async def get(self, user_id: str) -> Account | None: ...

    async def claim(self, user_id: str, owner: str, seconds: float) -> ProvisioningClaim | None:
        """Take the user's provisioning claim for `seconds`. None: another owner has it."""
        ...

    async def record(self, claim: ProvisioningClaim, change: AccountChange) -> Account:
        """Store a step's intent or result. Raises FencedError when the claim was taken over."""
        ...

    async def release(self, claim: ProvisioningClaim) -> None: ...

    async def incomplete(self, config_hash: str, limit: int) -> list[str]:
        """Users without a claim whose provisioning is incomplete, failed, or of another configuration."""
        ...

    async def outdated_customers(self, limit: int) -> list[str]:
        """Users without a claim whose billing customer has another address than the profile."""
        ...

    async def rename(self, user_id: str, name: str) -> Account: ...

    async def begin_deletion(self, user_id: str) -> None:
        """Mark the account as being deleted, for ever: no turn begins any more, queued ones are cancelled, the running
        one is asked to stop. Raises PlatformError(unauthorized) if the user does not exist, and (last_admin)."""
        ...

    async def unfinished_deletions(self, limit: int) -> list[str]:
        """Users without a claim who are being deleted, the longest waiting first."""
        ...

    async def delete(self, user_id: str, *, keep_spend: bool) -> None:
        """Delete the user from the identity provider, and every row of the user; nothing happens if there is none.

        `keep_spend`: what was spent is added to the sums of deleted users, which have no names. Raises FencedError if
        the account is not being deleted."""
        ...

    async def delete_history(self, user_id: str, conversation_id: str) -> None:
        """Delete the user's messages, and all that turns hold besides figures; the agent goes on in this conversation.

        Raises PlatformError(busy) while a turn waits or runs."""
        ...

    async def known_addresses(self, email: str) -> list[str]:
        """The hashes of the addresses that last signed in to the account of this e-mail address; at most 20."""
        ...

    async def record_sign_in(self, user_id: str, device: SignInDevice, address_hash: str | None) -> None:
        """Store the device of a sign-in of this user for as long as the sign-in lasts, and the hash of its address."""
        ...
