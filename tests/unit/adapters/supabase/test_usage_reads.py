"""Reading usage: with every digit, and page by page."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from server.adapters.supabase import reads
from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.reads import SupabaseReads
from server.ports import ModelUsage, Principal, Standing
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.adapters.supabase.project import Project

BY_MODEL, STANDINGS = "/rest/v1/usage_by_model", "/rest/v1/budget_standings"
FIRST = date(2026, 1, 1)
ANN = Principal("ann", "ann@example.com", SecretStr("a.b.c"), datetime(2030, 1, 1, tzinfo=UTC))


def row(day: int, model: str = "gpt-4") -> dict[str, Any]:
    return {
        "date": str(FIRST + timedelta(days=day)),
        "model": model,
        "model_calls": 2,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "cached_tokens": 64,
        "reasoning_tokens": 3,
        "total_tokens": 110,
        "cost": "0.12345678901234567890",
        "background_cost": "0.00000000000000000001",
    }


def paged(rows: list[dict[str, Any]], largest: int = 1000) -> Any:
    """PostgREST over these rows, with its maximum of rows per answer."""

    def answer(request: web.BaseRequest) -> list[dict[str, Any]]:
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", largest))
        return rows[offset : offset + min(limit, largest)]

    return answer


async def test_a_day_of_a_model_is_read_with_every_digit(project: Project, client: SupabaseClient) -> None:
    project.answers[BY_MODEL] = (200, [row(0)])
    found = await SupabaseReads(client).usage_models(ANN, FIRST, FIRST)
    assert found == [
        ModelUsage(
            FIRST, "gpt-4", 2, 100, 10, 64, 3, 110, Decimal("0.12345678901234567890"), Decimal("0.00000000000000000001")
        )
    ]
    [request] = project.seen
    assert request.headers["Authorization"] == "Bearer a.b.c"
    assert request.query["user_id"] == "eq.ann"
    assert request.query.getall("date") == ["gte.2026-01-01", "lte.2026-01-01"]
    assert request.query["order"] == "date.asc,model.asc"


@pytest.mark.parametrize("days", [0, 1, 124, 125, 366])
async def test_a_year_of_several_models_is_read_in_pages(project: Project, client: SupabaseClient, days: int) -> None:
    rows = [row(day, f"model {number}") for day in range(days) for number in range(4)]
    project.answers[BY_MODEL] = (200, paged(rows))
    found = await SupabaseReads(client).usage_models(ANN, FIRST, FIRST + timedelta(days=365))
    assert [(used.date, used.model) for used in found] == [
        (date.fromisoformat(used["date"]), used["model"]) for used in rows
    ]
    assert project.requests(BY_MODEL) == len(rows) // 500 + 1


async def test_too_many_rows_are_refused_and_not_truncated(
    project: Project, client: SupabaseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "MOST_ROWS", 1000)
    project.answers[BY_MODEL] = (200, paged([row(0, f"model {number:04}") for number in range(2000)]))
    with pytest.raises(PlatformError) as raised:
        await SupabaseReads(client).usage_models(ANN, FIRST, FIRST)
    assert raised.value.code is ErrorCode.INVALID_REQUEST
    assert project.requests(BY_MODEL) == 2


async def test_the_budget_is_read_with_every_digit(project: Project, client: SupabaseClient) -> None:
    project.answers[STANDINGS] = (
        200,
        [
            {
                "limit": "5.00",
                "spent": "1.23456789012345678901",
                "period": "30d",
                "started_at": "2026-11-01T01:00:00+01:00",
                "resets_at": "2026-12-01T00:00:00+00:00",
            }
        ],
    )
    began, ends = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
    assert await SupabaseReads(client).standing(ANN) == Standing(
        Decimal("5.00"), Decimal("1.23456789012345678901"), "30d", began, ends
    )
    [request] = project.seen
    assert (request.headers["Authorization"], request.query["user_id"]) == ("Bearer a.b.c", "eq.ann")


async def test_missing_fields_of_a_budget_are_none(project: Project, client: SupabaseClient) -> None:
    unknown = dict.fromkeys(("limit", "spent", "period", "started_at", "resets_at"))
    project.answers[STANDINGS] = (200, [unknown])
    assert await SupabaseReads(client).standing(ANN) == Standing(None, Decimal(0), None, None, None)
    project.answers[STANDINGS] = (200, [])
    assert await SupabaseReads(client).standing(ANN) is None
