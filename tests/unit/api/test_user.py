"""One's profile and spending."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import wire_time
from tests.fakes.database import DayRow
from tests.unit.api.world import World

PROFILE = "/api/v1/user/profile"
USAGE = "/api/v1/user/usage"


def _today(world: World) -> date:
    return world.now().astimezone(UTC).date()


async def test_the_profile_is_the_user_with_the_agent(world: World) -> None:
    user = await world.user()
    profile = (await user.get(PROFILE)).json
    assert (profile["id"], profile["email"]) == (user.user_id, world.database.users[user.user_id])
    assert profile["agent_id"] == world.database.profiles[user.user_id].account.agent_id


async def test_the_name_is_changed_and_trimmed(world: World) -> None:
    user = await world.user()
    assert (await user.patch(PROFILE, {"name": "  Анна "})).json["name"] == "Анна"
    assert (await user.get(PROFILE)).json["name"] == "Анна"


@pytest.mark.parametrize(
    "body", [{}, {"name": None}, {"name": ""}, {"name": "x" * 101}, {"email": "other@example.com"}]
)
async def test_nothing_else_of_the_profile_can_be_changed(world: World, body: dict[str, object]) -> None:
    answer = await (await world.user()).patch(PROFILE, body)
    assert (answer.status, answer.code) == (400, "invalid_request")


async def test_usage_adds_up_what_was_said(world: World) -> None:
    user = await world.user()
    for word in ("one", "two"):
        await user.say(word)
    usage = (await user.get(USAGE)).json
    spent = {"messages": 4, "tokens": 220, "cost": "0.004"}
    today = _today(world)
    assert usage["total"] == usage["today"] == spent
    assert usage["range"] == {"from": str(today - timedelta(days=29)), "to": str(today), **spent}
    assert usage["days"] == [{"date": str(today), **spent}]
    resets_at = world.billing.customers[user.user_id].resets_at
    assert resets_at is not None
    assert usage["budget"] == {
        "limit": "5", "spent": "0", "remaining": "5", "period": "30d", "resets_at": wire_time(resets_at),
    }  # fmt: skip
    assert (usage["currency"], usage["timezone"]) == ("USD", "UTC")


async def test_a_range_holds_both_its_days_and_only_days_with_usage(world: World) -> None:
    user = await world.user()
    for day in (1, 2, 4, 5):
        world.database.days[user.user_id, date(2024, 2, day)] = DayRow(2, 10, Decimal("0.1"))
    usage = (await user.get(USAGE, params={"from": "2024-02-02", "to": "2024-02-04"})).json
    assert [day["date"] for day in usage["days"]] == ["2024-02-02", "2024-02-04"]
    assert usage["range"] == {"from": "2024-02-02", "to": "2024-02-04", "messages": 4, "tokens": 20, "cost": "0.2"}
    assert usage["total"]["messages"] == 8
    assert usage["today"] == {"messages": 0, "tokens": 0, "cost": "0"}


async def test_tiny_costs_are_never_written_in_scientific_notation(world: World) -> None:
    user = await world.user()
    world.database.days[user.user_id, _today(world)] = DayRow(2, 1, Decimal("1E-9"))
    assert (await user.get(USAGE)).json["today"]["cost"] == "0.000000001"


async def test_usage_of_others_is_not_mine(world: World) -> None:
    ann, bob = await world.user(), await world.user()
    await ann.say("hello")
    assert (await bob.get(USAGE)).json["total"] == {"messages": 0, "tokens": 0, "cost": "0"}


async def test_an_overdrawn_budget_has_nothing_remaining(world: World) -> None:
    user = await world.user()
    world.billing.customers[user.user_id].spent = Decimal("5.5")
    budget = (await user.get(USAGE)).json["budget"]
    assert (budget["spent"], budget["remaining"]) == ("5.5", "0")


async def test_usage_works_without_litellm(world: World) -> None:
    user = await world.user()

    async def away(_operation: str) -> None:
        raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    world.billing.before = away
    answer = await user.get(USAGE)
    assert (answer.status, answer.json["budget"]) == (200, None)


async def test_usage_is_503_when_supabase_is_away(world: World) -> None:
    user = await world.user()
    await user.get(PROFILE)

    async def away(_operation: str) -> None:
        raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE, retry_after=5)

    world.database.before = away
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
async def test_a_range_that_makes_no_sense_is_400(world: World, query: str) -> None:
    answer = await (await world.user()).get(f"{USAGE}?{query}")
    assert (answer.status, answer.code) == (400, "invalid_request")


async def test_a_leap_year_fits_the_longest_range(world: World) -> None:
    user = await world.user()
    assert (await user.get(f"{USAGE}?from=2024-01-01&to=2024-12-31")).status == 200
    assert (await user.get(f"{USAGE}?from=2024-01-01&to=2025-01-01")).status == 400


async def test_only_a_last_day_means_the_thirty_days_up_to_it(world: World) -> None:
    usage = (await (await world.user()).get(f"{USAGE}?to=2024-03-01")).json
    assert usage["range"]["from"] == "2024-02-01"
    assert (await (await world.user()).get(f"{USAGE}?to=2000-01-01")).status == 200


async def test_today_is_the_day_in_utc(world: World) -> None:
    midnight = datetime(2030, 1, 1, tzinfo=UTC)
    world.passed = midnight + timedelta(seconds=5) - datetime.now(UTC)
    usage = (await (await world.user()).get(USAGE)).json
    assert usage["range"]["to"] == "2030-01-01"
