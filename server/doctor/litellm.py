"""Checks of LiteLLM: its database, the master key, and the agents' model with a price."""

from datetime import UTC, datetime, timedelta

from server.adapters.litellm.billing import LiteLLMBilling, is_listed
from server.adapters.litellm.client import LiteLLMClient
from server.adapters.litellm.probe import OLDEST_RELEASE, LiteLLMProbe, is_supported
from server.config.settings import Settings
from server.doctor.findings import Check, fail, ok, warn
from server.ports import Finding, ModelPrice, SpendLog

SERVICE = "litellm"
_NOBODYS_KEY = "0" * 64
_CLOCKS_MAY_DIFFER = 5.0


class LiteLLMChecks:
    """`all` returns the checks in the order of their dependencies."""

    def __init__(self, settings: Settings, client: LiteLLMClient) -> None:
        self._settings = settings
        self._model = settings.agent_model
        self._client = client
        self._probe = LiteLLMProbe(client)
        self._billing = LiteLLMBilling(client)

    def all(self) -> list[Check]:
        return [
            Check(SERVICE, "alive", self.alive, essential=True),
            Check(SERVICE, "database", self.database),
            Check(SERVICE, "master_key", self.master_key, essential=True),
            Check(SERVICE, "release", self.release),
            Check(SERVICE, "model", self.listed, essential=True),
            Check(SERVICE, "price", self.price),
            Check(SERVICE, "spend_log", self.spend_log),
            Check(SERVICE, "keys", self.keys),
        ]

    async def alive(self) -> Finding:
        await self._probe.alive()
        return ok(f"LiteLLM answers at {self._settings.litellm_base_url}")

    async def database(self) -> Finding:
        if await self._probe.has_database():
            return ok("LiteLLM has its database")
        return fail(
            "LiteLLM has no database: no keys, no budgets", "Set DATABASE_URL there to a PostgreSQL of its own."
        )

    async def master_key(self) -> Finding:
        if await self._client.accepts_key():
            return ok("LITELLM_MASTER_KEY is accepted")
        return fail("LiteLLM refuses LITELLM_MASTER_KEY", "Set it to the LITELLM_MASTER_KEY of that proxy.")

    async def release(self) -> Finding:
        return judge_release(await self._probe.release())

    async def listed(self) -> Finding:
        model, models = self._model, await self._billing.models()
        if not is_listed(model, models):
            known = ", ".join(sorted(models)) or "none"
            return fail(f"AGENT_MODEL {model} is not listed", f"Add it to LiteLLM's model_list, or choose of: {known}.")
        return judge_model(model, is_demo=await self._billing.is_demo(model), production=self._settings.is_production)

    async def price(self) -> Finding:
        return judge_price(self._model, await self._billing.price(self._model))

    async def spend_log(self) -> Finding:
        """Read the log with an unused key: checks the access and the clock."""
        now = datetime.now(UTC)
        return judge_log(await self._billing.spend((_NOBODYS_KEY,), now - timedelta(minutes=1), now))

    async def keys(self) -> Finding:
        return judge_expiry(await self._billing.expiring_keys())


def judge_release(found: str | None) -> Finding:
    if is_supported(found):
        return ok(f"LiteLLM is {found}")
    oldest = ".".join(map(str, OLDEST_RELEASE))
    return fail(
        f"LiteLLM {found or 'of an unknown release'} is not supported: costs cannot be settled",
        f"Deploy LiteLLM {oldest} or later, pinned to a release.",
    )


def judge_expiry(expiring: int) -> Finding:
    if not expiring:
        return ok("users' keys do not expire")
    return warn(
        f"{expiring} of the newest 100 keys will expire, after which these users' turns are refused",
        "Remove the duration from LiteLLM's default_key_generate_params and upperbound_key_generate_params, and run"
        " chat users repair USER_ID for each.",
    )


def judge_log(log: SpendLog) -> Finding:
    off = abs(log.clock) - log.clock_error
    if off > _CLOCKS_MAY_DIFFER:
        remedy = "Synchronize both machines' clocks by NTP. Charges are reconciled nevertheless."
        return warn(f"LiteLLM's clock and this machine's are {abs(log.clock):.0f} s apart", remedy)
    return ok("LiteLLM's spend log can be read, from which users are charged")


def judge_model(model: str, *, is_demo: bool, production: bool) -> Finding:
    if not is_demo:
        return ok(f"AGENT_MODEL {model} is listed")
    if not production:
        return ok(f"AGENT_MODEL {model} is listed, as the demo model")
    remedy = "Add a provider's model to LiteLLM's model_list, or set LITELLM_BASE_URL to a LiteLLM that has one."
    return fail(f"AGENT_MODEL {model} is the demo model, with which a server in production does not start", remedy)


def judge_price(model: str, price: ModelPrice | None) -> Finding:
    remedy = "Set input_cost_per_token and output_cost_per_token in that model's litellm_params."
    if price is None:
        return warn(f"{model} has no price: turns cost nothing and no budget is ever used up", remedy)
    if not (price.prompt or price.completion):
        return warn(f"{model} is listed as free: no budget is ever used up", remedy)
    prompt, completion = (f"${(1000 * value).normalize():f}" for value in (price.prompt, price.completion))
    return ok(f"{model} costs {prompt} in and {completion} out per 1,000 tokens")
