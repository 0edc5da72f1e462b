"""The state of a key that the model gateway refuses: asks the gateway, stores the reason and publishes it.

Repairs nothing itself, since the key may have been blocked or deleted on purpose. `chat users repair` does."""

from typing import Final

import structlog

from server.keyring import UnreadableSecretError, fingerprint
from server.ports import Account, AccountChange, AccountStore, FencedError, KeyState
from server.protocol.shapes import AgentStatus
from server.provisioning.claims import CLAIM_SECONDS
from server.provisioning.saga import Observer
from server.provisioning.steps import ProvisioningContext, key_of

log = structlog.get_logger(__name__)

REASONS: Final[dict[KeyState, str]] = {
    "blocked": "The model gateway has blocked this user's key. This needs an operator.",
    "missing": "The model gateway no longer knows this user's key. This needs an operator.",
    "expired": "This user's key has expired at the model gateway. This needs an operator.",
}


class KeyHealth:
    """Checks a refused key. `owner` names this instance in claims; it differs from the owner of its provisioning."""

    def __init__(self, store: AccountStore, context: ProvisioningContext, observer: Observer, owner: str) -> None:
        self._store = store
        self._context = context
        self._observer = observer
        self._owner = owner

    async def check(self, user_id: str) -> KeyState | None:
        """The state of the user's key at the gateway. If it cannot be used, the reason is stored with the account and
        published.

        None: the account has no key, or none that can be decrypted. Raises PlatformError if a service is
        unavailable."""
        account = await self._store.get(user_id)
        if account is None or account.encrypted_key is None:
            return None
        try:
            name = fingerprint(key_of(account, self._context.keys))
        except UnreadableSecretError:
            log.warning("key.unreadable", user_id=user_id)
            return None
        state = await self._context.billing.key_state(name)
        log.warning("key.refused", user_id=user_id, state=state)
        if (reason := REASONS.get(state)) is not None and account.status_reason != reason:
            await self._store_reason(account, reason)
        return state

    async def _store_reason(self, seen: Account, reason: str) -> None:
        """Store the reason under the claim, unless another holder has the claim or the key or status has changed since.
        An account that is not active has another reason, which stays."""
        claim = await self._store.claim(seen.user_id, self._owner, CLAIM_SECONDS)
        if claim is None:
            return
        now = claim.account
        try:
            if now.agent_status is AgentStatus.ACTIVE and now.encrypted_key == seen.encrypted_key:
                account = await self._store.record(claim, AccountChange(status_reason=reason))
                self._observer(account.user_id, account.agent_status, account.status_reason)
        except FencedError:
            log.info("key.reason_outdated", user_id=seen.user_id)
        finally:
            await self._store.release(claim)
