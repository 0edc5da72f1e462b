"""Inspects a Supabase project for `chat doctor`. Reads only; without retries or breaker."""

import asyncio
from importlib.resources.abc import Traversable
from typing import Any, Final, Literal

import httpx
import psycopg
from pydantic import SecretStr

from server.adapters.supabase.database import connect
from server.adapters.supabase.issuers import DISCOVERY, discovered_issuer
from server.adapters.supabase.migration_files import read_migrations
from server.adapters.supabase.migrations import Recorded, pending_of, recorded_in
from server.adapters.supabase.probe import NIL_ID
from server.resilience import ServiceError

DEADLINE_SECONDS: Final = 8.0
_NO_FUNCTION: Final = "PGRST202"


class SupabaseInspection:
    """Every method raises ServiceError if Supabase does not answer."""

    def __init__(self, url: str, anon_key: SecretStr, service_key: SecretStr, http: httpx.AsyncClient) -> None:
        self._url = url.rstrip("/")
        self._anon_key = anon_key
        self._service_key = service_key
        self._http = http

    async def auth_settings(self) -> dict[str, Any] | None:
        """The project's public settings of Auth. None if the anon key is refused."""
        response = await self._ask("GET", "/auth/v1/settings", self._anon_key)
        return None if response.status_code in (401, 403) else dict(_json(response))

    async def service_access(self) -> Literal["granted", "refused", "no_schema"]:
        """Whether the service key may call our functions, and whether they exist."""
        path, body = "/rest/v1/rpc/get_profile", {"p_user_id": NIL_ID}
        response = await self._ask("POST", path, self._service_key, body)
        if response.is_success:
            return "granted"
        return "no_schema" if _NO_FUNCTION in response.text else "refused"

    async def signing_algorithms(self) -> frozenset[str]:
        """The algorithms of the published keys; none for a project that signs with a shared secret."""
        response = await self._ask("GET", "/auth/v1/.well-known/jwks.json", self._anon_key)
        keys = _json(response).get("keys", []) if response.is_success else []
        return frozenset(key["alg"] for key in keys if key.get("alg"))

    async def issuer(self) -> str | None:
        """The issuer of the project's tokens in its discovery document; None if it has none."""
        return discovered_issuer(await self._ask("GET", DISCOVERY, self._anon_key))

    async def _ask(self, method: str, path: str, key: SecretStr, body: dict[str, str] | None = None) -> httpx.Response:
        text = key.get_secret_value()
        headers = {"apikey": text} if text.startswith("sb_") else {"apikey": text, "Authorization": f"Bearer {text}"}
        try:
            response = await self._http.request(
                method, self._url + path, headers=headers, json=body, timeout=DEADLINE_SECONDS
            )
        except httpx.HTTPError as cause:
            raise ServiceError(f"no answer from {self._url}: {type(cause).__name__}") from cause
        if response.is_server_error:
            raise ServiceError(f"{self._url} answered {response.status_code}")
        return response


def _json(response: httpx.Response) -> Any:
    try:
        return response.raise_for_status().json()
    except (httpx.HTTPStatusError, ValueError) as cause:
        raise ServiceError(f"what answers at {response.url.host} is not Supabase") from cause


async def pending_migrations(dsn: SecretStr, folder: Traversable) -> list[str]:
    """The names of the files that `chat migrate` would apply. Raises ServiceError, DatabaseError."""
    migrations = read_migrations(folder)
    try:
        recorded = await asyncio.to_thread(_recorded, dsn.get_secret_value())
    except psycopg.Error as cause:
        raise ServiceError("the database at SUPABASE_DB_URL did not answer") from cause
    return [migration.label for migration in pending_of(migrations, recorded)]


def _recorded(dsn: str) -> Recorded:
    with connect(dsn) as connection:
        return recorded_in(connection)
