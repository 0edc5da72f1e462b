"""PostgreSQL prepares each of Letta's statements once per connection instead of at each use.

Letta turns both caches of prepared statements off, for poolers that give each transaction another connection. Without
such a pooler that costs 0.02 CPU seconds a turn. The patch is not applied if the address looks like one.
"""

from typing import Any, Final
from urllib.parse import urlsplit

from letta_patches.known import NotApplicableError

STATEMENTS: Final = 500
"""Per connection. Letta has some 300 different ones."""
_CACHES: Final = ("statement_cache_size", "prepared_statement_cache_size")
_SUPABASE_TRANSACTION_POOLER: Final = 6543
_POOLERS: Final = ("pgbouncer", "-pooler.")


def apply() -> None:
    """Set the sizes for each new connection. Raises NotApplicableError."""
    from letta.server.db import async_pg_uri, engine
    from sqlalchemy import event

    if is_transaction_pooler(async_pg_uri):
        raise NotApplicableError("the database is behind a transaction pooler")

    event.listen(engine.sync_engine, "do_connect", _turn_caches_on)


def _turn_caches_on(_dialect: Any, _record: Any, _arguments: Any, options: dict[str, Any]) -> None:
    for cache in _CACHES:
        if cache in options:
            options[cache] = STATEMENTS


def is_transaction_pooler(uri: str) -> bool:
    """Whether consecutive transactions may use different connections to PostgreSQL, as far as its address shows."""
    address = urlsplit(uri)
    return address.port == _SUPABASE_TRANSACTION_POOLER or any(
        name in f"{address.hostname}?{address.query}".lower() for name in _POOLERS
    )
