"""Re-encrypts a user's stored key, from SECRET_KEY_PREVIOUS to SECRET_KEY, so that the previous one can be removed.

Touches the account store only: the key itself, which LiteLLM and Letta use, does not change."""

from typing import Literal

import structlog

from server.keyring import KeyRing, UnreadableSecretError
from server.ports import AccountChange, AccountStore, FencedError
from server.provisioning.steps import reencrypted_key

log = structlog.get_logger(__name__)

CLAIM_SECONDS = 60.0

Reencryption = Literal["done", "current", "busy", "unreadable"]
"""`current`: nothing to do. `busy`: the user is being provisioned now. `unreadable`: neither key decrypts it."""


async def reencrypt(store: AccountStore, keys: KeyRing, user_id: str, owner: str) -> Reencryption:
    """Re-encrypt under the user's claim, since provisioning may be changing the same key. Raises PlatformError."""
    claim = await store.claim(user_id, owner, CLAIM_SECONDS)
    if claim is None:
        return "busy"
    try:
        stored = claim.account.encrypted_key
        moved = AccountChange() if stored is None else reencrypted_key(keys, user_id, stored)
        if moved == AccountChange():
            return "current"
        await store.record(claim, moved)
        log.info("key.reencrypted", user_id=user_id)
        return "done"
    except UnreadableSecretError:
        return "unreadable"
    except FencedError:
        return "busy"
    finally:
        await store.release(claim)
