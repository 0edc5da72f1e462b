"""Whether Supabase serves, for `/ready`: its Auth, and through PostgREST the database with our functions in it."""

from typing import Final
from uuid import UUID

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.faults import SupabaseError

NOBODY: Final = str(UUID(int=0))


class SupabaseProbe:
    """Implements `server.ports.Probe`."""

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client

    @property
    def name(self) -> str:
        return "supabase"

    async def ping(self) -> None:
        """Raises PlatformError(supabase_unavailable), or SupabaseError where Auth is not well.

        The leases of nobody are renewed: a write that changes no row, and is refused where nothing can be written.
        """
        await self._client.call("renew_sessions", owner=NOBODY)
        response = await self._client.fetch("/auth/v1/health")
        if not response.is_success:
            raise SupabaseError(f"Supabase Auth answered {response.status_code} to its health check")
