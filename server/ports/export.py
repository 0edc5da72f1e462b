"""All that the database stores about a user, page by page, for the user's own copy."""

from dataclasses import dataclass
from typing import Final, Protocol

from server.protocol.shapes import Json

PARTS: Final = (
    "account",
    "identities",
    "sign_ins",
    "addresses",
    "api_keys",
    "messages",
    "turns",
    "attempts",
    "ledger",
    "usage",
    "budget",
)
"""The parts in the order of the export. `account` and `budget` have one row at most."""


@dataclass(frozen=True, slots=True)
class ExportPage:
    """Rows of one part, in order. `next` is given as `after` for the following page; None: this is the last one."""

    rows: list[Json]
    next: str | None


class ExportStore(Protocol):
    async def page(self, user_id: str, part: str, after: str | None, limit: int) -> ExportPage:
        """Up to `limit` rows of one of `PARTS`. Without keys, hashes of keys, and what instances coordinate by."""
        ...
