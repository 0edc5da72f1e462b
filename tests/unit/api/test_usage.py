"""Usage by day and by model, the budget, and the projection."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from server.ports import Standing
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.fakes.database import DayRow
from tests.unit.api.used import used
from tests.unit.api.world import Client, World

PROFILE = "/api/v1/user/profile"
USAGE = "/api/v1/user/usage"


def _today(world: World) -> date:
    return world.now().astimezone(UTC).date()


def standing(
    world: World, *, limit: str | None = "5", spent: str = "1.5", period: str | None = "30d", day: int = 10
) -> Standing:
    """A budget at day `day` of a period of thirty."""
    began = world.now() - timedelta(days=day)
    return Standing(None if limit is None else Decimal(limit), Decimal(spent), period, began, began + timedelta(30))


async def test_usage_is_the_sum_of_the_turns(world: World) -> None:
    user = await world.user()
    for word in ("one", "two"):
        await user.say(word)
    usage = (await user.get(USAGE)).json
    spent = {"messages": 4, "tokens": 220, "cost": "0.004"}
    today = _today(world)
    assert usage["total"] == usage["today"] == spent
    none = {"background": {"cost": "0"}}
    assert usage["range"] == {"from": str(today - timedelta(days=29)), "to": str(today), **spent, **none}
    assert usage["days"] == [{"date": str(today), **spent, "models": []}]
    assert (usage["currency"], usage["timezone"]) == ("USD", "UTC")


async def test_a_range_holds_both_its_days_and_only_days_with_usage(world: World) -> None:
    user = await world.user()
    for day in (1, 2, 4, 5):
        world.database.days[user.user_id, date(2024, 2, day)] = DayRow(2, 10, Decimal("0.1"))
    usage = (await user.get(USAGE, params={"from": "2024-02-02", "to": "2024-02-04"})).json
    assert [day["date"] for day in usage["days"]] == ["2024-02-02", "2024-02-04"]
    assert (usage["range"]["from"], usage["range"]["to"]) == ("2024-02-02", "2024-02-04")
    assert (usage["range"]["messages"], usage["range"]["tokens"], usage["range"]["cost"]) == (4, 20, "0.2")
    assert usage["total"]["messages"] == 8
    assert usage["today"] == {"messages": 0, "tokens": 0, "cost": "0"}


async def test_costs_are_rounded_to_twelve_decimals_once(world: World) -> None:
    """0.0212 three times is 0.06360000000000001 by LiteLLM; half a unit of the twelfth decimal, twice, is one."""
    for spent, expected in {
        "0.06360000000000001": "0.0636",
        "0.30000000000000004": "0.3",
        "0.000000075": "0.000000075",
        "0.00000000000004": "0.00000000000004",
        "9999.9999999999996": "10000",
    }.items():
        user = await world.user()
        world.database.days[user.user_id, _today(world)] = DayRow(2, 1, Decimal(spent))
        world.database.standings[user.user_id] = Standing(Decimal(20000), Decimal(spent), None, None, None)
        usage = (await user.get(USAGE)).json
        assert {usage[part]["cost"] for part in ("total", "today", "range")} == {expected}
        assert usage["budget"]["spent"] == expected
    halves = await world.user()
    for day in (2, 3):
        world.database.days[halves.user_id, date(2024, 2, day)] = DayRow(2, 1, Decimal("0.0000000000005"))
    usage = (await halves.get(f"{USAGE}?from=2024-02-01&to=2024-02-04")).json
    assert usage["range"]["cost"] == "0.000000000001"


async def test_tiny_costs_are_never_written_in_scientific_notation(world: World) -> None:
    user = await world.user()
    world.database.days[user.user_id, _today(world)] = DayRow(2, 1, Decimal("1E-9"))
    assert (await user.get(USAGE)).json["today"]["cost"] == "0.000000001"


async def test_usage_is_per_user(world: World) -> None:
    ann, bob = await world.user(), await world.user()
    await ann.say("hello")
    assert (await bob.get(USAGE)).json["total"] == {"messages": 0, "tokens": 0, "cost": "0"}


async def test_usage_without_turns_is_zero(world: World) -> None:
    usage = (await (await world.user()).get(USAGE)).json
    assert (usage["models"], usage["days"], usage["budget"]["spent"]) == ([], [], "0")
    assert usage["range"]["background"] == {"cost": "0"}
    assert usage["projection"]["cost"] == "0"


async def test_models_add_up_over_the_range_the_most_expensive_first(world: World) -> None:
    user = await world.user()
    world.database.models[user.user_id] = [
        used("2024-02-01", "outside", "9"),
        used("2024-02-02", "gpt-4", "0.30", "0.01"),
        used("2024-02-02", "mini", "0.00001"),
        used("2024-02-04", "gpt-4", "0.06", "0.02"),
        used("2024-02-05", "outside", "9"),
    ]
    world.database.days[user.user_id, date(2024, 2, 2)] = DayRow(2, 220, Decimal("0.30001"))
    usage = (await user.get(USAGE, params={"from": "2024-02-02", "to": "2024-02-04"})).json
    gpt_4 = {
        "model": "gpt-4", "model_calls": 2, "prompt_tokens": 200, "completion_tokens": 20, "cached_tokens": 128,
        "reasoning_tokens": 6, "tokens": 220, "cost": "0.36",
    }  # fmt: skip
    one = {"model_calls": 1, "prompt_tokens": 100, "completion_tokens": 10, "cached_tokens": 64, "reasoning_tokens": 3}
    one["tokens"] = 110
    mini = {"model": "mini", **one, "cost": "0.00001"}
    assert usage["models"] == [gpt_4, mini]
    assert usage["range"]["background"] == {"cost": "0.03"}
    second, fourth = usage["days"]
    assert second["models"] == [{"model": "gpt-4", **one, "cost": "0.3"}, mini]
    assert (second["date"], second["messages"], second["cost"]) == ("2024-02-02", 2, "0.30001")
    assert fourth["models"] == [{"model": "gpt-4", **one, "cost": "0.06"}]
    assert (fourth["date"], fourth["messages"], fourth["cost"]) == ("2024-02-04", 0, "0")


async def test_models_are_per_user(world: World) -> None:
    ann, bob = await world.user(), await world.user()
    world.database.models[ann.user_id] = [used(str(_today(world)), "gpt-4", "1")]
    world.database.standings[ann.user_id] = standing(world)
    usage = (await bob.get(USAGE)).json
    assert (usage["models"], usage["budget"]["spent"]) == ([], "0")


async def test_the_budget_is_computed_from_the_ledger(world: World) -> None:
    user = await world.user()
    world.database.standings[user.user_id] = standing(world, spent="1.2345678901")
    world.billing.customers[user.user_id].spent = Decimal("4")
    budget = (await user.get(USAGE)).json["budget"]
    assert (budget["limit"], budget["spent"], budget["remaining"]) == ("5", "1.2345678901", "3.7654321099")
    assert budget["period"] == "30d"
    started_at, resets_at = (datetime.fromisoformat(budget[name]) for name in ("started_at", "resets_at"))
    assert resets_at - started_at == timedelta(days=30)


@pytest.mark.parametrize(
    ("limit", "period", "remaining"), [("1", "30d", "0"), ("5", None, "3.5"), ("0", None, "0"), (None, "30d", None)]
)
async def test_the_remaining_budget_is_not_negative(
    world: World, limit: str | None, period: str | None, remaining: str | None
) -> None:
    user = await world.user()
    world.database.standings[user.user_id] = standing(world, limit=limit, spent="1.5", period=period)
    budget = (await user.get(USAGE)).json["budget"]
    assert (budget["limit"], budget["period"], budget["remaining"]) == (limit, period, remaining)


async def test_without_a_limit_and_a_period_there_is_no_budget(world: World) -> None:
    user = await world.user()
    world.database.standings[user.user_id] = Standing(None, Decimal("1.5"), None, None, None)
    assert (await user.get(USAGE)).json["budget"] is None


async def test_the_projection_is_to_the_end_of_the_budgets_period(world: World) -> None:
    user = await world.user()
    world.database.standings[user.user_id] = standing(world, spent="1.5", day=10)
    usage = (await user.get(USAGE)).json
    assert usage["projection"]["until"] == usage["budget"]["resets_at"]
    assert abs(Decimal(usage["projection"]["cost"]) - Decimal("4.5")) < Decimal("0.001")


async def test_without_a_period_the_projection_is_to_the_end_of_the_month_in_utc(world: World) -> None:
    user = await world.user()
    world.passed = datetime(2030, 2, 8, tzinfo=UTC) - datetime.now(UTC)
    world.database.days[user.user_id, date(2030, 1, 31)] = DayRow(2, 1, Decimal(100))
    for day in (1, 5):
        world.database.days[user.user_id, date(2030, 2, day)] = DayRow(2, 1, Decimal("0.7"))
    usage = (await Client(world.http, world.token(user.user_id), user.user_id).get(f"{USAGE}?from=2030-02-05")).json
    assert usage["projection"]["until"] == "2030-03-01T00:00:00Z"
    assert abs(Decimal(usage["projection"]["cost"]) - Decimal("5.6")) < Decimal("0.001")


async def test_there_is_no_projection_of_a_period_that_is_over(world: World) -> None:
    user = await world.user()
    world.database.standings[user.user_id] = standing(world, day=31)
    usage = (await user.get(USAGE)).json
    assert usage["projection"] is None
    assert usage["budget"]["spent"] == "1.5"


async def test_usage_is_available_while_litellm_is_unavailable(world: World) -> None:
    user = await world.user()

    async def unavailable(_operation: str) -> None:
        raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    world.billing.before = unavailable
    assert (await user.get(USAGE)).status == 200


async def test_usage_is_503_while_supabase_is_unavailable(world: World) -> None:
    user = await world.user()
    await user.get(PROFILE)

    async def unavailable(_operation: str) -> None:
        raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE, retry_after=5)

    world.database.before = unavailable
    answer = await user.get(USAGE)
    assert (answer.status, answer.code) == (503, "supabase_unavailable")


@pytest.mark.parametrize(
    "query",
    [
        "from=2024-02-02&to=2024-02-01",
        "from=2023-01-01&to=2024-02-01",
        "from=2024-02-30",
        "from=20240201",
        "from=2024-W05-4",
        "from=1706745600",
        "from=1699920000",
        "from=2024-02-01T00:00:00",
        "from=%D9%A2%D9%A0%D9%A2%D9%A4-01-01",
        "to=1999-12-31",
        "from=",
        "first=2024-02-01",
        "from=2999-01-01",
    ],
)
async def test_an_invalid_range_is_400(world: World, query: str) -> None:
    answer = await (await world.user()).get(f"{USAGE}?{query}")
    assert (answer.status, answer.code) == (400, "invalid_request")


async def test_a_leap_year_fits_the_longest_range(world: World) -> None:
    user = await world.user()
    assert (await user.get(f"{USAGE}?from=2024-01-01&to=2024-12-31")).status == 200
    assert (await user.get(f"{USAGE}?from=2024-01-01&to=2025-01-01")).status == 400


async def test_a_last_day_without_a_first_means_the_thirty_days_up_to_it(world: World) -> None:
    usage = (await (await world.user()).get(f"{USAGE}?to=2024-03-01")).json
    assert usage["range"]["from"] == "2024-02-01"
    assert (await (await world.user()).get(f"{USAGE}?to=2000-01-01")).status == 200


async def test_today_is_the_day_in_utc(world: World) -> None:
    midnight = datetime(2030, 1, 1, tzinfo=UTC)
    world.passed = midnight + timedelta(seconds=5) - datetime.now(UTC)
    usage = (await (await world.user()).get(USAGE)).json
    assert usage["range"]["to"] == "2030-01-01"


async def test_usage_is_documented_as_json_and_as_csv_by_days_in_utc(world: World) -> None:
    document = (await world.visitor.get("/openapi.json")).json
    content = document["paths"][USAGE]["get"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/csv"}
    assert "UTC" in document["paths"][USAGE]["get"]["description"]
