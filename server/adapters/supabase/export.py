"""ExportStore on the service-role SQL function `export_page`, which lists the columns of each part."""

from server.adapters.supabase.client import SupabaseClient
from server.ports import ExportPage


class SupabaseExportStore:
    """Implements `server.ports.ExportStore`."""

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client

    async def page(self, user_id: str, part: str, after: str | None, limit: int) -> ExportPage:
        found = await self._client.call("export_page", user_id=user_id, part=part, after=after, limit=limit)
        return ExportPage(found["rows"], found["next"])
