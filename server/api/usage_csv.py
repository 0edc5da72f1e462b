"""Usage as CSV (RFC 4180), one row for each UTC day and model, safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Iterable
from datetime import date
from typing import Final

from aiohttp import web

from server.ports import ModelUsage
from server.protocol.shapes import wire_money

HEADER: Final = (
    "date_utc",
    "model",
    "model_calls",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "total_tokens",
    "cost_usd",
)
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""The characters that begin a formula in spreadsheets, or that they strip before one."""


def usage_csv_text(rows: Iterable[ModelUsage]) -> str:
    """The header and a line for each row."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(HEADER)
    table.writerows(_cells(row) for row in rows)
    return text.getvalue()


def usage_csv(rows: Iterable[ModelUsage], first: date, last: date) -> web.Response:
    """The usage as a CSV file named after the range."""
    return web.Response(
        body=usage_csv_text(rows).encode(),
        headers={
            "Content-Type": "text/csv; charset=utf-8; header=present",
            "Content-Disposition": f'attachment; filename="usage-{first.isoformat()}-to-{last.isoformat()}.csv"',
            "Cache-Control": "no-store",
            "Vary": "Accept",
        },
    )


def _cells(row: ModelUsage) -> tuple[str | int | None, ...]:
    return (
        row.date.isoformat(),
        f"'{row.model}" if row.model.startswith(_FORMULAS) else row.model,
        row.model_calls,
        row.prompt_tokens,
        row.completion_tokens,
        row.cached_tokens,
        row.reasoning_tokens,
        row.tokens,
        wire_money(row.cost),
    )
