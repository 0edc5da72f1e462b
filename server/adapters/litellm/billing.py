"""BillingGateway on LiteLLM: one customer per user with its plan and its key, and the price of a model.

Every write may be repeated: our user id identifies the customer, and the value, which we choose, identifies the key."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from pydantic import SecretStr

from server.adapters.litellm.client import LiteLLMClient
from server.adapters.litellm.keys import LiteLLMKeys
from server.adapters.litellm.outcomes import refused
from server.adapters.litellm.plans import budget_of, plan_as_sent, plan_of
from server.adapters.litellm.spend_log import LiteLLMSpendLog
from server.ports import Budget, KeyState, ModelPrice, Plan, SpendLog
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError


class LiteLLMBilling:
    """Implements `server.ports.BillingGateway`. All methods raise PlatformError(litellm_unavailable)."""

    def __init__(self, client: LiteLLMClient) -> None:
        self._client = client
        self._spend_log = LiteLLMSpendLog(client)
        self._keys = LiteLLMKeys(client)

    async def ensure_customer(self, user_id: str, email: str, plan: Plan) -> None:
        """See the port.

        LiteLLM allows an address once: if another customer has it (its user was deleted and registered again), this
        one is created without an address. Raises PlatformError(internal_error) if LiteLLM refuses the plan."""
        limits = {name: value for name, value in plan_as_sent(plan).items() if value is not None}
        if not plan.models:
            del limits["models"]
        body: dict[str, object] = {"user_id": user_id, "auto_create_key": False, **limits}
        answer = await self._client.post("/user/new", body | {"user_email": email})
        if answer.status == 409 and await self._user(user_id) is None:
            answer = await self._client.post("/user/new", body)
        if not answer.ok and answer.status != 409:
            raise refused("customer", answer)

    async def set_address(self, user_id: str, email: str) -> None:
        """See the port. Reads the customer first, since LiteLLM would create an unknown one; unlike at a creation, it
        accepts an address that another customer has. Raises PlatformError(not_found | internal_error)."""
        if (await self._customer(user_id)).get("user_email") == email:
            return
        answer = await self._client.post("/user/update", {"user_id": user_id, "user_email": email})
        if not answer.ok:
            raise refused("address", answer)

    async def set_plan(self, user_id: str, plan: Plan) -> Budget:
        """See the port. Sends only the fields that differ, since a sent period begins again. Reads the customer first,
        since LiteLLM would create an unknown one. Raises PlatformError(not_found | internal_error)."""
        user = await self._customer(user_id)
        before, wanted = plan_as_sent(plan_of(user)), plan_as_sent(plan)
        change = {name: value for name, value in wanted.items() if value != before[name]}
        if change:
            answer = await self._client.post("/user/update", {"user_id": user_id, **change})
            if not answer.ok:
                raise refused("plan", answer)
            user = await self._customer(user_id)
        return budget_of(user)

    async def plan(self, user_id: str) -> Plan:
        return plan_of(await self._customer(user_id))

    async def ensure_key(self, user_id: str, key: SecretStr) -> None:
        await self._keys.ensure(user_id, key)

    async def block_other_keys(self, user_id: str, key: SecretStr) -> None:
        await self._keys.block_others(user_id, key)

    async def delete_customer(self, user_id: str) -> None:
        """See the port. LiteLLM deletes the customer's keys, also those made by hand, in the same call."""
        answer = await self._client.post("/user/delete", {"user_ids": [user_id]})
        if not answer.ok and answer.status != 404:
            raise refused("deletion of a customer", answer)

    async def key_state(self, key_hash: str) -> KeyState:
        return await self._keys.state(key_hash)

    async def budget(self, user_id: str) -> Budget | None:
        user = await self._user(user_id)
        return None if user is None else budget_of(user)

    async def price(self, model: str) -> ModelPrice | None:
        """See the port. If deployments differ, the first one with a price counts."""
        return find_price(await self._deployments(), model)

    async def spend(self, key_hashes: Sequence[str], since: datetime, until: datetime) -> SpendLog:
        """See the port. Raises PlatformError(internal_error) if LiteLLM refuses, and ValueError for an invalid hash."""
        return await self._spend_log.read(key_hashes, since, until)

    async def models(self) -> set[str]:
        """The names of all listed models; not in the port."""
        return {str(deployment.get("model_name")) for deployment in await self._deployments()}

    async def lists(self, model: str) -> bool:
        """Whether a deployment serves this model, by its name or a pattern (`openai/*`); not in the port."""
        return is_listed(model, await self.models())

    async def expiring_keys(self) -> int:
        """See `LiteLLMKeys.expiring`; not in the port."""
        return await self._keys.expiring()

    async def is_demo(self, model: str) -> bool:
        """Whether a deployment of the model has `demo` in its model_info, as the local stack's demo model; not in the
        port."""
        return any(
            deployment.get("model_name") == model and (deployment.get("model_info") or {}).get("demo") is True
            for deployment in await self._deployments()
        )

    async def _deployments(self) -> list[Mapping[str, Any]]:
        answer = await self._client.get("/model/info")
        if not answer.ok:
            raise refused("price list", answer)
        listed = answer.body.get("data")
        if not isinstance(listed, list):  # from a gateway in between: not an empty list
            raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)
        return listed

    async def _user(self, user_id: str) -> Mapping[str, Any] | None:
        answer = await self._client.get("/user/info", {"user_id": user_id})
        if answer.status == 404:
            return None
        if not answer.ok:
            raise refused("customer", answer)
        return answer.body.get("user_info") or None

    async def _customer(self, user_id: str) -> Mapping[str, Any]:
        user = await self._user(user_id)
        if user is None:
            raise PlatformError(ErrorCode.NOT_FOUND, "The model gateway does not know this user.")
        return user


def is_listed(model: str, names: Iterable[str]) -> bool:
    """Whether one of LiteLLM's model names is the model, or a pattern with `*` that matches it."""
    return any(fnmatchcase(model, re.sub(r"[\[?]", r"[\g<0>]", name)) for name in names)


def find_price(deployments: Iterable[Mapping[str, Any]], model: str) -> ModelPrice | None:
    """The price in LiteLLM's list. Without a listed price, cached prompt tokens cost as much as other prompt tokens, as
    LiteLLM charges them (measured)."""
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
