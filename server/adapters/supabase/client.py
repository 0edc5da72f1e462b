"""One connection pool to a Supabase project, and its three uses: service calls, a user's reads, sign-in.

The SDK's clients keep the identity in mutable state. So the service client never signs a user in, and a client for a
user is created for one call. Closing such a client would close the pool: only `aclose` here does.
"""

import json
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol, TypeVar

import httpx
from postgrest import AsyncPostgrestClient
from pydantic import SecretStr
from supabase import AsyncClient, AsyncClientOptions
from supabase_auth import AsyncGoTrueAdminAPI, AsyncGoTrueClient

from server.adapters.aiohttp_transport import AiohttpTransport, PlainClient
from server.adapters.supabase.faults import Faults, Setting
from server.aio import TaskSet
from server.protocol.codes import ErrorCode
from server.resilience import Breaker, Guard, ServiceError, retry_after_in

CALL_SECONDS = 5.0
"""The deadline of one attempt. Our functions take milliseconds, so after this time Supabase counts as unavailable."""

REQUEST_SECONDS = 30.0
"""No request lasts longer, even if its caller was cancelled and its answer arrives byte by byte."""

CONCURRENT_CALLS = 40
CONCURRENT_READS = 20
"""Users' reads have separate slots, so that a thousand clients that reload their history delay no turn and no lease."""

CONCURRENT_AUTH_CALLS = 16
"""Auth hashes a password for about a tenth of a second. So those of a burst of sign-ups, all at once, would exceed the
deadline, which counts as an outage and refuses everybody's messages. They queue for slots of their own instead."""

CONCURRENT_SEARCHES = 5
"""How long a search takes depends on its words and on the user's history. So searches have slots and a breaker of their
own: slow ones delay and prevent no other call."""

SERVICE_KEY: Final[Setting] = "SUPABASE_SERVICE_KEY"
ANON_KEY: Final[Setting] = "SUPABASE_ANON_KEY"

RETRY_LATER = frozenset({429, 502, 503, 504})
"""HTTP statuses of a service, or of a gateway in between, that may have a `Retry-After`."""

FORWARDED_FOR = "Sb-Forwarded-For"

T = TypeVar("T")


class Query(Protocol):
    """Any of the SDK's request builders."""

    def execute(self) -> Coroutine[Any, Any, Any]: ...


async def _drop_key_as_bearer(request: httpx.Request) -> None:
    """Remove `sb_…` keys, which are not JWTs and belong only in `apikey`, from the SDK's bearer token."""
    if request.headers.get("authorization", "").startswith("Bearer sb_"):
        del request.headers["authorization"]


class SupabaseClient:
    """A project's REST and Auth endpoints. Keys may be `sb_publishable_…`/`sb_secret_…` or legacy JWT keys."""

    def __init__(self, url: str, anon_key: SecretStr, service_key: SecretStr, guard: Guard | None = None) -> None:
        self.url = url.rstrip("/")
        self.guard = guard or Guard(
            Breaker("supabase", ErrorCode.SUPABASE_UNAVAILABLE), attempts=2, slots=CONCURRENT_CALLS
        )
        self._reading = Guard(
            self.guard.breaker, attempts=self.guard.attempts, backoff=self.guard.backoff, slots=CONCURRENT_READS
        )
        self.authenticating = Guard(self.guard.breaker, slots=CONCURRENT_AUTH_CALLS)
        self._searching = Guard(
            Breaker("supabase search", ErrorCode.SUPABASE_UNAVAILABLE), attempts=1, slots=CONCURRENT_SEARCHES
        )
        self.http = PlainClient(
            AiohttpTransport(trust_env=True, total=REQUEST_SECONDS),
            timeout=httpx.Timeout(CALL_SECONDS, connect=3.0),
            event_hooks={"request": [_drop_key_as_bearer], "response": [self._read_headers]},
        )
        self.faults = Faults()
        self._ahead = 0.0
        self._requests = TaskSet("Supabase request", ignored=(Exception,))  # their callers were cancelled
        self._anon_key = anon_key.get_secret_value()
        self._service_key = service_key.get_secret_value()
        self._service = AsyncClient(self.url, service_key.get_secret_value(), self._options())

    def time(self) -> float:
        """The current time in seconds since 1970, by PostgREST's clock; by ours before its first answer."""
        return time.time() + self._ahead

    async def _read_headers(self, response: httpx.Response) -> None:
        """Read `Date` and `Retry-After` of PostgREST, which the SDK's errors do not have. Raises ServiceError."""
        if "/rest/v1/" not in response.request.url.path:
            return
        with suppress(ValueError):
            self._ahead = parsedate_to_datetime(response.headers.get("Date", "")).timestamp() - time.time()
        if response.status_code in RETRY_LATER:
            retry_after = retry_after_in(response.headers)
            raise ServiceError(f"Supabase is unavailable ({response.status_code})", retry_after=retry_after)

    def _options(self) -> AsyncClientOptions:
        """A new object for each client, since the SDK stores the session and the headers in it."""
        return AsyncClientOptions(
            auto_refresh_token=False, persist_session=False, httpx_client=self.http, postgrest_client_retry=False
        )

    async def call(self, function: str, /, *, repeat: bool = True, vital: bool = False, **parameters: object) -> Any:
        """Call one of our SQL functions as the service role; parameters are named without their `p_`.

        `repeat`: the function may be retried when an answer was lost. `vital`: it is called also while the breaker is
        open. Raises PlatformError(supabase_unavailable | invalid_request).
        """
        named = {f"p_{name}": value for name, value in parameters.items()}

        async def ask() -> Any:
            return await self._execute(self._service.rpc(function, named), SERVICE_KEY)

        if not repeat:
            return await self.guard.once(ask, deadline=CALL_SECONDS)
        return await self.guard.repeatable(ask, deadline=CALL_SECONDS, vital=vital)

    async def read(self, token: SecretStr, query: Callable[[AsyncPostgrestClient], Query]) -> list[dict[str, Any]]:
        """Read rows with a user's access token, under row level security.

        Raises PlatformError(supabase_unavailable | unauthorized | token_expired).
        """
        headers = {"apikey": self._anon_key, "Authorization": f"Bearer {token.get_secret_value()}"}
        rest = AsyncPostgrestClient(f"{self.url}/rest/v1", headers=headers, http_client=self.http, retry_enabled=False)
        rows: list[dict[str, Any]] = await self._reading.repeatable(
            lambda: self._execute(query(rest), ANON_KEY, of_user=True), deadline=CALL_SECONDS
        )
        return rows

    async def read_as_user(self, user_id: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        """Read rows for a user without a token, under the same row level security. `query`: see the SQL function.

        Raises PlatformError(supabase_unavailable).
        """
        named = {"p_user_id": user_id, "p_query": json.dumps(query)}
        rows: list[dict[str, Any]] = await self._reading.repeatable(
            lambda: self._execute(self._service.rpc("read_as_user", named), SERVICE_KEY), deadline=CALL_SECONDS
        )
        return rows

    async def search(self, function: str, /, **parameters: object) -> Any:
        """Call one of our SQL functions that search for a user, as `call` does, in the slots of searches.

        Not retried: a search without an answer in time has none the second time, either."""
        named = {f"p_{name}": value for name, value in parameters.items()}
        return await self._searching.once(
            lambda: self._execute(self._service.rpc(function, named), SERVICE_KEY), deadline=CALL_SECONDS
        )

    async def inspect(self, query: Callable[[AsyncClient], Query]) -> list[dict[str, Any]]:
        """Read rows as the service role, without row level security: for operators.

        Raises PlatformError(supabase_unavailable).
        """
        rows: list[dict[str, Any]] = await self.guard.repeatable(
            lambda: self._execute(query(self._service), SERVICE_KEY), deadline=CALL_SECONDS
        )
        return rows

    async def _execute(self, query: Query, key: Setting, *, of_user: bool = False) -> Any:
        with self.faults.translated(key, of_user=of_user):
            data = (await self._complete(query.execute())).data
        if isinstance(data, str):  # none of our functions returns text: the SDK returns the body if it is not JSON
            raise ServiceError("Supabase answered with something unreadable")
        return data

    async def _complete(self, request: Coroutine[Any, Any, T]) -> T:
        """Complete a request even if its caller is cancelled, so that no change is cut off on its way, and the
        connection can be used again. REQUEST_SECONDS bounds it."""
        return await self._requests.result(self._requests.create(request))

    def visitor(self, address: str | None = None) -> AsyncGoTrueClient:
        """A client of Auth for one sign-up, sign-in or refresh. It is not reused, and never closed.

        Auth has rate limits per IP address, and all our requests come from one. With a secret key (`sb_secret_…`, not a
        legacy one) it uses the client's `address` in Sb-Forwarded-For, if the project has "IP address forwarding"
        enabled (supabase.com/docs/guides/auth/rate-limits). The client's User-Agent is not forwarded: a secret key with
        that of a browser is refused. The SDK's full client would start a task at each sign-in.
        """
        key, forwarded = self._anon_key, {}
        if address is not None and self._service_key.startswith("sb_secret_"):
            key, forwarded = self._service_key, {FORWARDED_FOR: address}
        return AsyncGoTrueClient(
            url=f"{self.url}/auth/v1",
            headers={"apikey": key, "Authorization": f"Bearer {key}", **forwarded},
            auto_refresh_token=False,
            persist_session=False,
            http_client=self.http,
        )

    def administrator(self) -> AsyncGoTrueAdminAPI:
        """Auth's admin API, which Supabase Lite does not have. Calls without an anonymous client's rate limits."""
        key = self._service_key
        headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        return AsyncGoTrueAdminAPI(url=f"{self.url}/auth/v1", headers=headers, http_client=self.http)

    async def fetch(self, path: str, *, headers: dict[str, str] | None = None, deadline: float = 5.0) -> httpx.Response:
        """GET `path` with the anon key. Raises PlatformError(supabase_unavailable) for 5xx, 429 and no answer."""

        async def get() -> httpx.Response:
            with self.faults.translated(ANON_KEY):
                response = await self._complete(
                    self.http.get(f"{self.url}{path}", headers={"apikey": self._anon_key} | (headers or {}))
                )
            if (refused := self.faults.refuses_our_key(response.status_code, response.text, ANON_KEY)) is not None:
                raise refused
            if response.status_code >= 500 or response.status_code in RETRY_LATER:
                retry_after = retry_after_in(response.headers)
                raise ServiceError(f"Supabase answered {response.status_code}", retry_after=retry_after)
            return response

        return await self.guard.repeatable(get, deadline=deadline)

    async def aclose(self) -> None:
        await self._requests.aclose()
        await self.http.aclose()
