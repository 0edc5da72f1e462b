"""One connection pool to a Supabase project, and the three ways through it: service calls, a user's reads, sign-in.

The SDK's clients carry identity in mutable state, so the service client never signs anybody in, and whatever carries a
user is made for one call and thrown away. Closing one of them would close the pool: only `aclose` here does.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import httpx
from postgrest import APIError, AsyncPostgrestClient
from pydantic import SecretStr
from supabase import AsyncClient, AsyncClientOptions
from supabase_auth import AsyncGoTrueClient

from server.aio import cancel_and_wait
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience import Breaker, Guard, ServiceError, retry_after_in

CALL_SECONDS = 5.0
"""The deadline of one attempt. Our functions take milliseconds: a longer wait means that something is down."""

KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which Node (Supabase Lite) closes an idle connection."""

CALLS_AT_ONCE = 40
READS_AT_ONCE = 20
"""Users' reads have places of their own: a thousand clients that reload their history hold up no turn and no lease."""

CONNECTIONS = 200
"""More than can be under way at once, those included that nobody waits for any more."""

UNAVAILABLE_CODES = frozenset({"", "PGRST000", "PGRST001", "PGRST002", "PGRST003"})
"""PostgREST without its database, and a gateway in between, which knows none of its codes."""

TURNED_AWAY = frozenset({429, 502, 503, 504})
"""HTTP statuses of a service, or of a gateway in between, that may say when to come back."""

UNAVAILABLE_CLASSES = ("08", "40", "53", "55", "57", "58", "XX")
"""SQLSTATE classes of a database that cannot right now: connection, rollback, resources, locks, operator, system."""

UNSTORABLE_TEXT = frozenset({"22021", "22P05"})
"""What PostgreSQL says of a NUL character."""

T = TypeVar("T")


class SupabaseError(Exception):
    """Supabase refused a request of ours that it should have taken. Carries no row values: those may be messages."""


class Query(Protocol):
    """Any of the SDK's request builders."""

    def execute(self) -> Awaitable[Any]: ...


async def _drop_key_as_bearer(request: httpx.Request) -> None:
    """`sb_…` keys are no JWTs and belong in `apikey` alone; the SDK repeats them as a bearer token."""
    if request.headers.get("authorization", "").startswith("Bearer sb_"):
        del request.headers["authorization"]


async def _heed_retry_after(response: httpx.Response) -> None:
    """The SDK's errors of PostgREST carry no headers: take it from the response. Raises ServiceError."""
    if response.status_code in TURNED_AWAY and "/rest/v1/" in response.request.url.path:
        retry_after = retry_after_in(response.headers)
        raise ServiceError(f"Supabase cannot answer now ({response.status_code})", retry_after=retry_after)


@contextlib.asynccontextmanager
async def service_faults() -> AsyncIterator[None]:
    """Turn what the connection and PostgREST report into ServiceError, PlatformError or SupabaseError."""
    try:
        yield
    except httpx.HTTPError as cause:
        raise ServiceError(f"no connection to Supabase: {type(cause).__name__}") from cause
    except UnicodeEncodeError as cause:
        raise PlatformError(ErrorCode.INVALID_REQUEST, "The text is not valid Unicode.") from cause
    except APIError as cause:
        raise _translated(cause) from None


def _is_unavailable(code: str, message: str) -> bool:
    """Whether the service is at fault. `SUP` is Supabase Lite's code for whatever it knows no other for."""
    if code == "SUP":
        return " violates " not in message
    gateway_error = len(code) == 3 and code.isdigit()  # the HTTP status, where the body is not PostgREST's
    return gateway_error or code in UNAVAILABLE_CODES or code.startswith(UNAVAILABLE_CLASSES)


def _translated(error: APIError) -> Exception:
    code = error.code or ""
    if _is_unavailable(code, error.message or ""):
        return ServiceError(f"Supabase cannot answer now ({code})")
    if code in UNSTORABLE_TEXT:
        return PlatformError(ErrorCode.INVALID_REQUEST, "The text contains a NUL character.")
    if code == "PGRST303" or (code == "PGRST301" and "expired" in (error.message or "").lower()):
        return PlatformError(ErrorCode.TOKEN_EXPIRED)
    if code in {"PGRST301", "PGRST302"}:
        return PlatformError(ErrorCode.UNAUTHORIZED)
    return SupabaseError(f"Supabase refused the request ({code or 'no code'}): {error.message}")


class SupabaseClient:
    """A project's REST and Auth endpoints. Keys may be `sb_publishable_…`/`sb_secret_…` or legacy JWT keys."""

    def __init__(self, url: str, anon_key: SecretStr, service_key: SecretStr, guard: Guard | None = None) -> None:
        self.url = url.rstrip("/")
        self.guard = guard or Guard(
            Breaker("supabase", ErrorCode.SUPABASE_UNAVAILABLE), attempts=2, places=CALLS_AT_ONCE
        )
        self._reading = Guard(
            self.guard.breaker, attempts=self.guard.attempts, backoff=self.guard.backoff, places=READS_AT_ONCE
        )
        self.http = httpx.AsyncClient(
            timeout=httpx.Timeout(CALL_SECONDS, connect=3.0),
            limits=httpx.Limits(
                max_connections=CONNECTIONS, max_keepalive_connections=20, keepalive_expiry=KEEPALIVE_SECONDS
            ),
            event_hooks={"request": [_drop_key_as_bearer], "response": [_heed_retry_after]},
        )
        self._carried: set[asyncio.Future[Any]] = set()
        self._anon_key = anon_key.get_secret_value()
        self._service = AsyncClient(self.url, service_key.get_secret_value(), self._options())

    def _options(self) -> AsyncClientOptions:
        """A fresh object for each client: the SDK keeps the session and the headers in it."""
        return AsyncClientOptions(
            auto_refresh_token=False, persist_session=False, httpx_client=self.http, postgrest_client_retry=False
        )

    async def call(self, function: str, /, *, repeat: bool = True, vital: bool = False, **parameters: object) -> Any:
        """Call one of our SQL functions as the service role; parameters are named without their `p_`.

        Raises PlatformError(supabase_unavailable | invalid_request). `repeat` is for functions that may be called again
        when an answer was lost; `vital` for those that are asked also while Supabase is taken to be away.
        """
        named = {f"p_{name}": value for name, value in parameters.items()}

        async def ask() -> Any:
            return await self._execute(self._service.rpc(function, named))

        if not repeat:
            return await self.guard.once(ask, deadline=CALL_SECONDS)
        return await self.guard.repeatable(ask, deadline=CALL_SECONDS, vital=vital)

    async def read(self, token: SecretStr, query: Callable[[AsyncPostgrestClient], Query]) -> list[dict[str, Any]]:
        """Read rows with a user's access token, so that row level security judges.

        Raises PlatformError(supabase_unavailable | unauthorized | token_expired).
        """
        headers = {"apikey": self._anon_key, "Authorization": f"Bearer {token.get_secret_value()}"}
        rest = AsyncPostgrestClient(f"{self.url}/rest/v1", headers=headers, http_client=self.http, retry_enabled=False)
        rows: list[dict[str, Any]] = await self._reading.repeatable(
            lambda: self._execute(query(rest)), deadline=CALL_SECONDS
        )
        return rows

    async def inspect(self, query: Callable[[AsyncClient], Query]) -> list[dict[str, Any]]:
        """Read rows as the service role, past row level security: for operators.

        Raises PlatformError(supabase_unavailable).
        """
        rows: list[dict[str, Any]] = await self.guard.repeatable(
            lambda: self._execute(query(self._service)), deadline=CALL_SECONDS
        )
        return rows

    async def _execute(self, query: Query) -> Any:
        async with service_faults():
            data = (await self._carry(query.execute())).data
        if isinstance(data, str):  # none of our functions returns text: the SDK hands on what is no JSON
            raise ServiceError("Supabase answered with something that cannot be read")
        return data

    async def _carry(self, request: Awaitable[T]) -> T:
        """Carry a request that was begun to its end, whoever has stopped waiting for it.

        httpcore's pool loses a connection for good when a request is cancelled after it was given one and before it has
        begun to connect. With its last one it lost the whole project, until the process was started again. What bounds
        an abandoned request is the client's own timeouts.
        """
        carried = asyncio.ensure_future(request)
        self._carried.add(carried)
        carried.add_done_callback(self._arrived)
        return await asyncio.shield(carried)

    def _arrived(self, carried: "asyncio.Future[Any]") -> None:
        self._carried.discard(carried)
        if not carried.cancelled():
            carried.exception()  # whoever waited has it; perhaps nobody did to the end

    def visitor(self) -> AsyncGoTrueClient:
        """A client of Auth for one sign-up, sign-in or refresh, to be thrown away afterwards, never closed.

        Not the SDK's whole client: that starts a task of its own when somebody signs in.
        """
        return AsyncGoTrueClient(
            url=f"{self.url}/auth/v1",
            headers={"apikey": self._anon_key, "Authorization": f"Bearer {self._anon_key}"},
            auto_refresh_token=False,
            persist_session=False,
            http_client=self.http,
        )

    async def fetch(self, path: str, *, headers: dict[str, str] | None = None, deadline: float = 5.0) -> httpx.Response:
        """GET `path` with the anon key. Raises PlatformError(supabase_unavailable) for 5xx, 429 and no answer."""

        async def get() -> httpx.Response:
            async with service_faults():
                response = await self._carry(
                    self.http.get(f"{self.url}{path}", headers={"apikey": self._anon_key} | (headers or {}))
                )
            if response.status_code >= 500 or response.status_code in TURNED_AWAY:
                retry_after = retry_after_in(response.headers)
                raise ServiceError(f"Supabase answered {response.status_code}", retry_after=retry_after)
            return response

        return await self.guard.repeatable(get, deadline=deadline)

    async def aclose(self) -> None:
        await cancel_and_wait(*self._carried)
        await self.http.aclose()
