"""Checks whether Letta answers, for `/ready`, and whether it is configured for this platform, for `chat doctor`."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from letta_client import APIConnectionError, APIStatusError

from server.adapters.letta.client import LettaClient, classified, get_json, post_json
from server.adapters.letta.errors import RefusedError
from server.resilience import ServiceError

DEADLINE_SECONDS: Final = 2.0
_SUPPORTED: Final = re.compile(r"0\.16\.\d+")
_MEMBERS: Final = "/v1/admin/users/"
_ONE: Final = {"limit": 1}
_PATCHES: Final = "/v1/patches"
_NO_ROUTE: Final = ("Not Found", "Method Not Allowed")
_NO_CONVERSATION: Final = "conv-00000000-0000-4000-8000-000000000000"


class LettaProbe:
    """Implements `server.ports.Probe`."""

    name = "letta"

    def __init__(self, client: LettaClient) -> None:
        self._client = client

    async def ping(self) -> None:
        """Raises ServiceError, RefusedError or TimeoutError. Bypasses the breaker, to see a recovery."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await classified(lambda: get_json(self._client.as_admin(), "/v1/health/"))


def is_supported(version: str) -> bool:
    """Whether this is the last series of Letta that serves the REST API this platform talks to."""
    return _SUPPORTED.fullmatch(version) is not None


class LettaInspection:
    """Inspects a Letta server for an operator, without changing it.

    Every method raises ServiceError if Letta does not answer.
    """

    def __init__(self, client: LettaClient) -> None:
        self._admin = client.as_admin()
        self._as_member = client.as_member

    async def version(self) -> str:
        health = await classified(lambda: get_json(self._admin, "/v1/health/"))
        return str(health.get("version"))

    async def accepts_password(self) -> bool:
        """Whether Letta accepts our password (a server without LETTA_SERVER_SECURE accepts every one)."""
        return (await _refusal(lambda: get_json(self._admin, _MEMBERS, _ONE)))[0] not in (401, 403)

    async def patches(self) -> dict[str, str | None]:
        """Our patches of this Letta by name: None if applied, else the reason why not. Empty: Letta has no patches.

        Raises RefusedError if the password is wrong."""

        async def read() -> dict[str, str | None]:
            patches = (await get_json(self._admin, _PATCHES))["patches"]
            return {one["name"]: None if one["applied"] else str(one["detail"]) for one in patches}

        if (await _refusal(lambda: get_json(self._admin, _PATCHES)))[0] == 404:
            return {}
        return await classified(read)

    async def is_open(self) -> bool:
        """Whether everyone who reaches Letta may read and change everything: LETTA_SERVER_SECURE is not set."""
        stranger = self._admin.with_options(api_key="a-password-nobody-chose")
        return (await _refusal(lambda: get_json(stranger, _MEMBERS, _ONE)))[0] not in (401, 403)

    async def has_default_actor(self) -> bool:
        """Whether a request that names no member acts as a shared one: LETTA_NO_DEFAULT_ACTOR is not set."""
        return (await _refusal(lambda: get_json(self._admin, "/v1/agents/", _ONE)))[0] < 400

    async def reaches(self, model_url: str) -> bool:
        """Whether an OpenAI-compatible API that checks keys (or asks for none) answers Letta at `model_url`.

        Letta's 401 is that API's refusal of an invalid key, if Letta accepts our password: check `accepts_password`
        first.
        """
        body = {"provider_type": "openai", "api_key": "sk-a-key-that-nobody-has", "base_url": model_url}
        return (await _refusal(lambda: post_json(self._admin, "/v1/providers/check", body)))[0] in (200, 401)

    async def conversations(self) -> Literal["locked", "unlocked", "missing"] | None:
        """Whether conversations exist, and are locked during a run, which needs Redis. None: no member to ask as.

        Asks to rejoin a conversation that does not exist, since Letta checks for Redis first.
        """
        members = await classified(lambda: get_json(self._admin, _MEMBERS, _ONE))
        if not members:
            return None
        member = self._as_member(members[0]["id"])
        status, detail = await _refusal(lambda: post_json(member, f"/v1/conversations/{_NO_CONVERSATION}/stream", {}))
        if status == 503:
            return "unlocked"
        return "missing" if status in (404, 405) and detail in _NO_ROUTE else "locked"


async def _refusal(call: Callable[[], Awaitable[object]]) -> tuple[int, str]:
    """The HTTP status and reason of a refused call; (200, "") of one that was not. Raises ServiceError."""
    try:
        await call()
    except APIConnectionError as error:
        raise ServiceError("Letta did not answer") from error
    except APIStatusError as error:
        return error.status_code, RefusedError(error).detail
    return 200, ""
