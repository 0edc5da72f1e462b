"""Users' keys at LiteLLM: the key of ours that a user's calls are made with, and those it has replaced.

Ours have the alias `user <id> <part of the fingerprint>` (only `user <id>` in earlier versions). Keys that LiteLLM's
operators made for a user by hand are never changed."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from pydantic import SecretStr

from server.adapters.litellm.client import Answer, LiteLLMClient
from server.adapters.litellm.outcomes import refused
from server.adapters.litellm.plans import moment
from server.keyring import fingerprint
from server.ports import KeyState
from server.ports.schedule import KEY_OVERLAP, KEY_REPLACED
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

_OVERLAP: Final = f"{KEY_OVERLAP // timedelta(minutes=1)}m"
EXPIRY_HINT: Final = "LiteLLM's key_generate_params set a duration, which would end this user's turns; it is removed."
_NEWEST: Final = {"return_full_object": "true", "size": "100", "sort_by": "created_at", "sort_order": "desc"}
_STATES: Final[dict[str, KeyState]] = {
    "active": "active", "expired": "expired", "revoked": "blocked", "deleted": "missing",
}  # fmt: skip

Key = Mapping[str, Any]


class LiteLLMKeys:
    """The keys part of `BillingGateway`. All methods raise PlatformError(litellm_unavailable), and (internal_error) if
    LiteLLM refuses."""

    def __init__(self, client: LiteLLMClient) -> None:
        self._client = client

    async def ensure(self, user_id: str, key: SecretStr) -> None:
        """See `BillingGateway.ensure_key`. Registers the new key before the older ones get an expiry, so that a key is
        valid after a crash in between. Repeating the call completes it."""
        name = fingerprint(key)
        ours = await self._ours(user_id)
        if name not in ours:
            expires = await self._generate(user_id, key)
            if expires is not None:
                log.warning("key.expiry_unasked", user_id=user_id, expires=expires, hint=EXPIRY_HINT)
        else:
            expires = ours[name].get("expires")
            if ours[name].get("blocked"):
                await self._change("/key/unblock", {"key": name})
                log.info("key.unblocked", user_id=user_id)
        if expires is not None:
            await self._change("/key/update", {"key": name, "duration": None})
        for older, row in ours.items():
            if older != name and not row.get("expires"):
                await self._change("/key/update", {"key": older, "duration": _OVERLAP})
                log.info("key.retired", user_id=user_id)

    async def block_others(self, user_id: str, key: SecretStr) -> None:
        """See `BillingGateway.block_other_keys`."""
        for other, row in (await self._ours(user_id)).items():
            if other != fingerprint(key) and not row.get("blocked"):
                await self._change("/key/block", {"key": other})
                log.info("key.blocked", user_id=user_id)

    async def state(self, key_hash: str) -> KeyState:
        """See `BillingGateway.key_state`. LiteLLM still returns a deleted key, with the status `deleted`."""
        answer = await self._client.get("/key/info", {"key": key_hash})
        if answer.status == 404:
            return "missing"
        if not answer.ok:
            raise refused("key", answer)
        row = answer.body.get("info") or {}
        state = _STATES.get(row.get("status") or "")
        if state is None:
            log.error("litellm.key_state_unreadable")
            raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)
        return state

    async def _ours(self, user_id: str) -> dict[str, Key]:
        """The user's keys that we registered, by hash."""
        answer = await self._client.get("/user/info", {"user_id": user_id})
        if not answer.ok and answer.status != 404:
            raise refused("customer", answer)
        rows = (answer.body.get("keys") or []) if answer.ok else []
        return {str(row["token"]): row for row in rows if _is_ours(user_id, row.get("key_alias"))}

    async def expiring(self) -> int:
        """How many of our newest keys have an expiry that LiteLLM's configuration set. Replaced keys, which expire
        after KEY_OVERLAP, do not count."""
        answer = await self._client.get("/key/list", _NEWEST)
        if not answer.ok:
            raise refused("list of keys", answer)
        found = [row for row in answer.body.get("keys") or () if isinstance(row, dict)]
        ours = [row for row in found if str(row.get("key_alias") or "").startswith("user ")]
        soon = datetime.now(UTC) + KEY_REPLACED
        return sum((moment(row.get("expires")) or soon) > soon for row in ours)

    async def _generate(self, user_id: str, key: SecretStr) -> str | None:
        """Register the value, unless a call whose answer was lost has registered it. Returns its expiry as LiteLLM
        writes it; None: it does not expire, as it should be."""
        alias = f"user {user_id} {fingerprint(key)[:12]}"
        body = {"key": key.get_secret_value(), "user_id": user_id, "key_alias": alias}
        answer = await self._client.post("/key/generate", body)
        if answer.ok:
            return _text(answer.body.get("expires"))
        registered = (await self._ours(user_id)).get(fingerprint(key))
        if registered is None:
            raise refused("key", answer)
        return _text(registered.get("expires"))

    async def _change(self, path: str, body: Mapping[str, object]) -> Answer:
        """Change a key, unless it was deleted meanwhile."""
        answer = await self._client.post(path, body)
        if not answer.ok and answer.status != 404:
            raise refused("key", answer)
        return answer


def _is_ours(user_id: str, alias: str | None) -> bool:
    return alias == f"user {user_id}" or (alias or "").startswith(f"user {user_id} ")


def _text(found: object) -> str | None:
    return None if found is None else str(found)
