"""BillingGateway on LiteLLM: one customer and one virtual key per user, their budget, and the price of a model.

Every write may be repeated: a customer is found again by our user id, a key by its value, which we choose."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import structlog
from pydantic import SecretStr

from server.keyring import fingerprint
from server.litellm_adapter.client import Answer, LiteLLMClient
from server.litellm_adapter.spend_log import LiteLLMSpendLog
from server.ports import Budget, ModelPrice, Plan, SpendLog
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)


class LiteLLMBilling:
    """Implements `server.ports.BillingGateway`. All methods raise PlatformError(litellm_unavailable)."""

    def __init__(self, client: LiteLLMClient) -> None:
        self._client = client
        self._spend_log = LiteLLMSpendLog(client)

    async def ensure_customer(self, user_id: str, email: str, plan: Plan) -> None:
        """Create the customer unless it exists.

        LiteLLM allows an address once: where another customer holds it (its user was deleted and registered again),
        this one is created without. Raises PlatformError(internal_error) when LiteLLM refuses the plan."""
        body: dict[str, object] = {"user_id": user_id, "auto_create_key": False}
        if plan.budget is not None:
            body |= {"max_budget": float(plan.budget), "budget_duration": plan.period}
        answer = await self._client.post("/user/new", body | {"user_email": email})
        if answer.status == 409 and await self._user(user_id) is None:
            answer = await self._client.post("/user/new", body)
        if not answer.ok and answer.status != 409:
            raise _refused("customer", answer)

    async def ensure_key(self, user_id: str, key: SecretStr) -> None:
        """Make `key` (`sk-…`) the user's only key. Raises PlatformError(internal_error) when LiteLLM refuses it."""
        alias = f"user {user_id}"
        body = {"key": key.get_secret_value(), "user_id": user_id, "key_alias": alias}
        answer = await self._client.post("/key/generate", body)
        if answer.ok or (answer.status == 400 and await self._owns(user_id, key)):
            return
        if answer.error.get("param") == "key_alias":  # an older key of this user whose value was lost
            await self._client.post("/key/delete", {"key_aliases": [alias]})
            answer = await self._client.post("/key/generate", body)
        if not answer.ok:
            raise _refused("key", answer)

    async def budget(self, user_id: str) -> Budget | None:
        user = await self._user(user_id)
        if user is None:
            return None
        return Budget(
            limit=_money(user.get("max_budget")),
            spent=_money(user.get("spend")) or Decimal(0),
            period=user.get("budget_duration"),
            resets_at=_moment(user.get("budget_reset_at")),
        )

    async def price(self, model: str) -> ModelPrice | None:
        """The listed price of a model now. Where deployments differ, the first one with a price stands."""
        return find_price(await self._deployments(), model)

    async def spend(self, key_hashes: Sequence[str], since: datetime, until: datetime) -> SpendLog:
        """Raises PlatformError(internal_error) where LiteLLM refuses to tell, and ValueError where a hash is none."""
        return await self._spend_log.read(key_hashes, since, until)

    async def models(self) -> set[str]:
        """The names of all models listed; beyond the port."""
        return {str(deployment.get("model_name")) for deployment in await self._deployments()}

    async def is_demo(self, model: str) -> bool:
        """Whether a deployment of the model says `demo` in its model_info, as the local stack's demo model does;
        beyond the port."""
        return any(
            deployment.get("model_name") == model and (deployment.get("model_info") or {}).get("demo") is True
            for deployment in await self._deployments()
        )

    async def _deployments(self) -> list[Mapping[str, Any]]:
        answer = await self._client.get("/model/info")
        if not answer.ok:
            raise _refused("price list", answer)
        listed = answer.body.get("data")
        if not isinstance(listed, list):  # a gateway's answer, say: that nothing is listed is another thing
            raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)
        return listed

    async def _user(self, user_id: str) -> Mapping[str, Any] | None:
        answer = await self._client.get("/user/info", {"user_id": user_id})
        if answer.status == 404:
            return None
        if not answer.ok:
            raise _refused("customer", answer)
        return answer.body.get("user_info") or None

    async def _owns(self, user_id: str, key: SecretStr) -> bool:
        answer = await self._client.get("/key/info", {"key": fingerprint(key)})
        return answer.ok and answer.body.get("info", {}).get("user_id") == user_id


def find_price(deployments: Iterable[Mapping[str, Any]], model: str) -> ModelPrice | None:
    """The price in LiteLLM's list. Cached prompt tokens without a price of their own cost what prompt tokens cost,
    as LiteLLM itself charges them (measured)."""
    for deployment in deployments:
        listed = deployment.get("model_info") or {}
        prompt, completion = _money(listed.get("input_cost_per_token")), _money(listed.get("output_cost_per_token"))
        if deployment.get("model_name") != model or prompt is None or completion is None:
            continue
        cached = _money(listed.get("cache_read_input_token_cost"))
        return ModelPrice(prompt, completion, prompt if cached is None else cached)
    return None


def _money(value: Decimal | int | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _moment(value: str | None) -> datetime | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _refused(what: str, answer: Answer) -> PlatformError:
    """LiteLLM's own words may hold addresses and key hashes: only their kind is kept."""
    log.error("litellm.refused", what=what, status=answer.status, kind=answer.error.get("type"))
    return PlatformError(
        ErrorCode.INTERNAL_ERROR, f"The model gateway refused the {what} (HTTP {answer.status}).", retryable=False
    )
