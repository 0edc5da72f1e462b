"""Administrative calls to LiteLLM with the master key: JSON over one shared aiohttp session, each with a deadline.

Amounts in answers keep every digit that LiteLLM wrote. No user's key may appear in a path or a query."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import aiohttp
import structlog
from pydantic import SecretStr

from server.adapters.litellm.clock import GatewayClock
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience import Guard, ServiceError, retry_after_in

log = structlog.get_logger(__name__)

DEADLINE_SECONDS = 8.0
CONNECT_SECONDS = 3.0
"""Short, so that the guard retries early: a few connects on loopback hung on a busy machine."""


@dataclass(frozen=True, slots=True)
class Answer:
    """LiteLLM's answer: the HTTP status (below 500, neither 401 nor 429) and the decoded body."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def error(self) -> Mapping[str, Any]:
        """The `error` object of a refusal: `message`, `type`, `param`."""
        found = self.body.get("error") if isinstance(self.body, dict) else None
        return found if isinstance(found, dict) else {}


class LiteLLMClient:
    """LiteLLM's administrative API. The session belongs to the caller. Every answer updates `clock`."""

    def __init__(
        self,
        base_url: str,
        master_key: SecretStr,
        session: aiohttp.ClientSession,
        guard: Guard,
        clock: GatewayClock | None = None,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {master_key.get_secret_value()}"}
        self._session = session
        self._guard = guard
        self.clock = clock or GatewayClock()

    async def get(
        self, path: str, query: Mapping[str, str] | None = None, *, kind: type[dict[str, Any] | list[Any]] = dict
    ) -> Answer:
        """GET with retries while LiteLLM is unavailable; a success has a body of `kind`.

        Raises PlatformError(litellm_unavailable)."""
        return await self._guard.repeatable(
            lambda: self._asked("GET", path, kind, query=query), deadline=DEADLINE_SECONDS
        )

    async def post(self, path: str, body: Mapping[str, object]) -> Answer:
        """An idempotent write, with the same retries. Raises PlatformError(litellm_unavailable)."""
        return await self._guard.repeatable(
            lambda: self._asked("POST", path, dict, body=body), deadline=DEADLINE_SECONDS
        )

    async def accepts_key(self) -> bool:
        """Whether LiteLLM accepts the master key. Raises ServiceError, TimeoutError."""
        try:
            await self.ask_once("/model/info", deadline=DEADLINE_SECONDS)
        except PlatformError:
            return False
        return True

    async def ask_once(self, path: str, *, deadline: float, authorized: bool = True) -> Answer:
        """One GET that bypasses guard and breaker, for probes. Raises ServiceError, TimeoutError, PlatformError."""
        async with asyncio.timeout(deadline):
            return await self._send("GET", path, authorized=authorized)

    async def _asked(
        self, method: Literal["GET", "POST"], path: str, kind: type[dict[str, Any] | list[Any]], **content: Any
    ) -> Answer:
        """Send. A success without a body of `kind` comes from a gateway in between, and raises ServiceError."""
        answer = await self._send(method, path, **content)
        if answer.ok and not isinstance(answer.body, kind):
            raise ServiceError(f"LiteLLM answered {answer.status} at {path} with something that is no {kind.__name__}")
        return answer

    async def _send(
        self,
        method: Literal["GET", "POST"],
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        authorized: bool = True,
    ) -> Answer:
        asked_at = self.clock.now()
        try:
            async with self._session.request(
                method,
                self._base_url + path,
                params=query,
                json=body,
                headers=self._headers if authorized else {},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                allow_redirects=False,
            ) as response:
                self.clock.observe(response.headers.get("Date"), asked_at)
                status, body_sent = response.status, await response.read()
                retry_after = retry_after_in(response.headers)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as cause:
            raise ServiceError(f"LiteLLM did not answer: {type(cause).__name__}") from cause
        if status >= 500 or status == 429:
            raise ServiceError(f"LiteLLM answered {status} at {path}", retry_after=retry_after, answered=status == 500)
        return _parse(path, status, body_sent)


def _parse(path: str, status: int, sent: bytes) -> Answer:
    """The answer, also if it refuses the request. Raises if the service or our key is at fault."""
    if status in (401, 403):
        log.error("litellm.master_key_refused", path=path, status=status)
        raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE, "The model gateway does not accept this server's key.")
    try:
        body = json.loads(sent, parse_float=Decimal)
    except ValueError as cause:
        raise ServiceError(f"LiteLLM answered {status} at {path} with something that is not JSON") from cause
    return Answer(status, body)
