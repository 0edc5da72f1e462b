"""The probe of Supabase for `/ready`: its Auth, and through PostgREST the database with our functions."""

from typing import Final
from uuid import UUID

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.faults import SupabaseError

NIL_ID: Final = str(UUID(int=0))


class SupabaseProbe:
    """Implements `server.ports.Probe`."""

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client

    @property
    def name(self) -> str:
        return "supabase"

    async def ping(self) -> None:
        """Raises PlatformError(supabase_unavailable), or SupabaseError if Auth reports that it is unhealthy.

        Renews the leases of an unknown owner: this changes no row, and fails if the database is read-only.
        """
        await self._client.call("renew_sessions", owner=NIL_ID)
        response = await self._client.fetch("/auth/v1/health")
        if not response.is_success:
            raise SupabaseError(f"Supabase Auth answered {response.status_code} to its health check")
