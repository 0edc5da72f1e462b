"""Checks of Letta: its release, its access protection, its conversations and its connection to LiteLLM."""

from collections.abc import Mapping
from typing import Final

from server.adapters.letta.client import LettaClient
from server.adapters.letta.probe import LettaInspection, is_supported
from server.config.settings import Settings
from server.doctor.findings import Check, fail, ok, warn
from server.ports import Finding

SERVICE = "letta"
SPEED_PATCHES: Final = (
    "tool_order",
    "tls_context",
    "prepared_statements",
    "connection_tests",
    "unused_rows",
    "last_stop_reason",
    "tool_schemas",
    "signatures",
    "derived_keys",
)


class LettaChecks:
    """`all` returns the checks in the order of their dependencies."""

    def __init__(self, settings: Settings, client: LettaClient) -> None:
        self._settings = settings
        self._letta = LettaInspection(client)

    def all(self) -> list[Check]:
        return [
            Check(SERVICE, "version", self.version, essential=True),
            Check(SERVICE, "password", self.password, essential=True),
            Check(SERVICE, "closed", self.password_required),
            Check(SERVICE, "default_actor", self.default_actor),
            Check(SERVICE, "conversations", self.conversations),
            Check(SERVICE, "reaches_litellm", self.model),
            Check(SERVICE, "stop", self.stop),
            Check(SERVICE, "speed", self.speed),
        ]

    async def version(self) -> Finding:
        found = await self._letta.version()
        if is_supported(found):
            return ok(f"Letta {found} answers at {self._settings.letta_base_url}")
        return fail(f"Letta {found} is not supported", "Deploy Letta 0.16.8: later releases are another product.")

    async def password(self) -> Finding:
        if await self._letta.accepts_password():
            return ok("LETTA_API_TOKEN is accepted")
        return fail("Letta refuses LETTA_API_TOKEN", "Set it to the LETTA_SERVER_PASSWORD of that server.")

    async def password_required(self) -> Finding:
        if not await self._letta.is_open():
            return ok("Letta refuses requests without its password")
        judge = fail if self._settings.is_production else warn
        return judge(
            "Letta needs no password: anyone who can reach it controls every agent",
            "Set LETTA_SERVER_SECURE=true and a LETTA_SERVER_PASSWORD there, and LETTA_API_TOKEN here to match.",
        )

    async def default_actor(self) -> Finding:
        if not await self._letta.has_default_actor():
            return ok("requests without a user are refused")
        return warn("Letta lets requests without a user act as a shared one", "Set LETTA_NO_DEFAULT_ACTOR=true there.")

    async def conversations(self) -> Finding:
        match await self._letta.conversations():
            case "locked":
                return ok("conversations exist and are locked while a turn runs")
            case "unlocked":
                return fail(
                    "Letta has no Redis: two turns could mix", "Set LETTA_REDIS_HOST and LETTA_REDIS_PORT there."
                )
            case "missing":
                return fail("this Letta has no conversations", "Deploy Letta 0.16.8.")
            case None:
                return warn("conversations cannot be checked before the first user", "Register a user, then repeat.")

    async def model(self) -> Finding:
        model_url = self._settings.model_url_for_letta
        if await self._letta.reaches(model_url):
            return ok(f"Letta reaches the model gateway at {model_url}")
        return fail(
            f"Letta cannot reach the model gateway at {model_url}",
            "Set LITELLM_URL_FOR_LETTA to LiteLLM's address as seen from Letta's machine.",
        )

    async def stop(self) -> Finding:
        return judge_stop(await self._letta.patches())

    async def speed(self) -> Finding:
        return judge_speed(await self._letta.patches())


def judge_stop(patches: Mapping[str, str | None]) -> Finding:
    """Judge whether a stop ends the model's call. `patches`: None for an applied patch, else why it is not applied."""
    if "stop" not in patches:
        return warn(
            "Letta is as it was released: a reply that is stopped is written, and charged, to its end",
            "Deploy Letta from `deploy/letta/` (docs/deploy.md), which closes the model's stream.",
        )
    if (reason := patches["stop"]) is not None:
        return warn(
            f"a reply that is stopped is written, and charged, to its end: {reason}",
            "Deploy Letta from this release's `deploy/letta/`, with LETTA_PATCH_STOP unset.",
        )
    return ok("a run that is cancelled closes its model's stream")


def judge_speed(patches: Mapping[str, str | None]) -> Finding:
    """Judge whether Letta has the patches that save processor time and let prompts be cached. `patches`: see
    `judge_stop`."""
    if not patches:
        return warn(
            "Letta is as it was released: a turn takes more than twice the processor time, its prompt is rarely cached",
            "Deploy Letta from `deploy/letta/` (docs/deploy.md).",
        )
    missing = [f"{name}: {patches.get(name, 'unknown')}" for name in SPEED_PATCHES if patches.get(name, "") is not None]
    if missing:
        return warn(
            f"Letta spends more processor time or uncached tokens on a turn than it could ({'; '.join(missing)})",
            "Deploy Letta from this release's `deploy/letta/`, with a direct address of PostgreSQL.",
        )
    return ok("all patches that make Letta faster and keep prompts cacheable are applied")
