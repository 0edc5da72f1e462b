"""ExportStore in memory: parts with the fields that tests compare."""

from dataclasses import dataclass

from server.ports import ExportPage
from server.protocol.shapes import Json
from tests.fakes.database import MemoryDatabase


@dataclass(slots=True)
class FakeExportStore:
    """Implements `server.ports.ExportStore` on a MemoryDatabase. The key of a row is its number within the part.

    `asked`: the part and size of each page."""

    database: MemoryDatabase

    async def page(self, user_id: str, part: str, after: str | None, limit: int) -> ExportPage:
        await self.database.reached(f"export {part}")
        first = 0 if after is None else int(after)
        rows = self._rows(user_id, part)[first : first + limit]
        await self.database.answered(f"export {part}")
        return ExportPage(rows, str(first + limit) if len(rows) == limit else None)

    def _rows(self, user_id: str, part: str) -> list[Json]:
        database = self.database
        turns = [row.turn for row in database.of_user(user_id)]
        match part:
            case "account":
                return [{"id": user_id, "email": database.users[user_id]}] if user_id in database.users else []
            case "messages":
                shown = [row.turn for row in database.of_user(user_id) if not row.is_deleted]
                both = [message for turn in shown for message in (turn.user_message, turn.message)]
                return [{"id": one.id, "role": one.role, "content": one.content} for one in both if one is not None]
            case "turns":
                return [{"id": turn.id, "status": str(turn.status)} for turn in turns]
            case "sign_ins":
                return [{"id": key} for key, owner in database.sign_ins.items() if owner == user_id]
            case "addresses":
                return [{"hash": one} for one in database.addresses.get(user_id, [])]
            case "ledger":
                return [{"request_id": key} for key, entry in database.ledger.items() if entry.user_id == user_id]
            case "usage":
                return [{"date": day.isoformat()} for owner, day in sorted(database.days) if owner == user_id]
        return []
