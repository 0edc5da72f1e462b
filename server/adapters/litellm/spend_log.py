"""Reads LiteLLM's log of the calls charged to keys, page by page. Keys are named by their hashes only.

The log is written seconds after the calls, also while its pages are read. So pages are addressed by time, not by
number: each begins at the second where the previous one ended, and rows in both count once."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from server.adapters.litellm.client import Answer, LiteLLMClient
from server.adapters.litellm.spend_rows import UnreadableRowError, call_of
from server.ports import ModelCall, SpendLog
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

PAGE_ROWS: Final = 100
"""A row is 7 to 10 KB: larger pages would block both servers' event loops."""
MAX_PAGES: Final = 1_000
_KEY_HASH: Final = re.compile(r"[0-9a-f]{64}")
_SECOND: Final = timedelta(seconds=1)

Row = Mapping[str, Any]


class LiteLLMSpendLog:
    """LiteLLM's spend log, read with the master key."""

    def __init__(self, client: LiteLLMClient) -> None:
        self._client = client

    async def read(self, key_hashes: Sequence[str], since: datetime, until: datetime) -> SpendLog:
        """`BillingGateway.spend`: both times included. Raises PlatformError(litellm_unavailable | internal_error), and
        ValueError for an invalid hash."""
        if not all(_KEY_HASH.fullmatch(key_hash) for key_hash in key_hashes):
            raise ValueError("a key is named by the SHA-256 hex of its value")
        since, until = since.astimezone(UTC), until.astimezone(UTC)
        calls: dict[str, ModelCall] = {}
        for key_hash in dict.fromkeys(key_hashes):
            async for row in self._rows(key_hash, since, until):
                if isinstance(row.get("api_key"), str) and row["api_key"] != key_hash:
                    continue  # LiteLLM ignored the filter; rows without a key are unreadable
                call = _read(row)
                calls[call.request_id] = call
        within = [call for call in calls.values() if since <= call.started_at <= until]
        within.sort(key=lambda call: (call.started_at, call.request_id))
        return SpendLog(tuple(within), self._client.clock.ahead, self._client.clock.error)

    async def _rows(self, key_hash: str, since: datetime, until: datetime) -> AsyncIterator[Row]:
        """The rows of one key: some of them twice, and some from before or after the requested period."""
        if since > until:
            return
        first, last, number = _floor(since), _ceil(until), 1
        for _ in range(MAX_PAGES):
            answer = await self._page(key_hash, first, last, number)
            if not answer.ok:
                raise _refused(answer)
            rows = _objects(answer.body.get("data"))
            for row in rows:
                yield row
            if len(rows) < PAGE_ROWS:
                return
            ends = _floor(_read(rows[-1]).started_at)
            first, number = (ends, 1) if ends > first else (first, number + 1)
        log.error("litellm.spend_log_endless", pages=MAX_PAGES)
        raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    async def _page(self, key_hash: str, first: datetime, last: datetime, number: int) -> Answer:
        query = {
            "api_key": key_hash,
            "start_date": f"{first:%Y-%m-%d %H:%M:%S}",
            "end_date": f"{last:%Y-%m-%d %H:%M:%S}",
            "page": str(number),
            "page_size": str(PAGE_ROWS),
            "sort_by": "startTime",
            "sort_order": "asc",
        }
        return await self._client.get("/spend/logs/v2", query)


def _read(row: Row) -> ModelCall:
    """The call of a row. An unreadable row fails the whole read, which is retried later, instead of being left out."""
    try:
        return call_of(row)
    except UnreadableRowError as cause:
        raise _unreadable(cause.field) from cause


def _objects(rows: object) -> list[Row]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _unreadable("data")
    return rows


def _unreadable(field: str) -> PlatformError:
    """Log the field's name and not its value, which may be a secret."""
    log.error("litellm.spend_unreadable", field=field)
    return PlatformError(ErrorCode.LITELLM_UNAVAILABLE)


def _refused(answer: Answer) -> PlatformError:
    log.error("litellm.refused", what="spend log", status=answer.status, kind=answer.error.get("type"))
    return PlatformError(
        ErrorCode.INTERNAL_ERROR, f"The model gateway refused the spend log (HTTP {answer.status}).", retryable=False
    )


def _floor(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _ceil(moment: datetime) -> datetime:
    return moment if moment.microsecond == 0 else _floor(moment) + _SECOND
