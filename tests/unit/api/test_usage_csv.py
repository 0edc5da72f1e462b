"""Usage as CSV: complete, exact, and safe in a spreadsheet."""

import csv
import io

import pytest

from tests.unit.api.used import used
from tests.unit.api.world import World

USAGE = "/api/v1/user/usage"
CSV_HEADER = (
    "date_utc,model,model_calls,prompt_tokens,completion_tokens,cached_tokens,reasoning_tokens,total_tokens,cost_usd"
)


async def test_csv_has_a_row_for_each_day_and_model(world: World) -> None:
    user = await world.user()
    world.database.models[user.user_id] = [
        used("2024-02-04", "gpt-4", "0.06"),
        used("2024-02-02", "mini", "1E-9"),
        used("2024-02-02", "gpt-4", "0.3"),
    ]
    answer = await user.get(f"{USAGE}?from=2024-02-01&to=2024-02-29", headers={"Accept": "text/csv"})
    assert answer.raw.decode().split("\r\n") == [
        CSV_HEADER,
        "2024-02-02,gpt-4,1,100,10,64,3,110,0.3",
        "2024-02-02,mini,1,100,10,64,3,110,0.000000001",
        "2024-02-04,gpt-4,1,100,10,64,3,110,0.06",
        "",
    ]
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="usage-2024-02-01-to-2024-02-29.csv"'
    assert (answer.headers["Cache-Control"], answer.headers["Vary"]) == ("no-store", "Accept")


async def test_csv_without_usage_is_the_header(world: World) -> None:
    answer = await (await world.user()).get(USAGE, headers={"Accept": "text/csv, application/json;q=0.5"})
    assert answer.raw.decode() == CSV_HEADER + "\r\n"


@pytest.mark.parametrize("accept", ["application/json", "*/*", "image/png", "text/csv;q=0.1, application/json"])
async def test_it_is_json_unless_csv_is_preferred(world: World, accept: str) -> None:
    answer = await (await world.user()).get(USAGE, headers={"Accept": accept})
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Vary"] == "Accept"


async def test_an_invalid_range_is_a_problem_for_csv_too(world: World) -> None:
    answer = await (await world.user()).get(f"{USAGE}?from=yesterday", headers={"Accept": "text/csv"})
    assert (answer.status, answer.code) == (400, "invalid_request")


@pytest.mark.parametrize("model", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0"])
async def test_a_models_name_is_not_a_formula(world: World, model: str) -> None:
    user = await world.user()
    world.database.models[user.user_id] = [used("2024-02-02", model, "1")]
    answer = await user.get(f"{USAGE}?from=2024-02-01&to=2024-02-29", headers={"Accept": "text/csv"})
    _, row = csv.reader(io.StringIO(answer.raw.decode(), newline=""))
    assert row[1] == "'" + model


async def test_names_with_commas_quotes_and_any_letters_are_escaped(world: World) -> None:
    user, model = await world.user(), 'модель, "большая"'
    world.database.models[user.user_id] = [used("2024-02-02", model, "1")]
    answer = await user.get(f"{USAGE}?from=2024-02-01&to=2024-02-29", headers={"Accept": "text/csv"})
    _, row = csv.reader(io.StringIO(answer.raw.decode(), newline=""))
    assert row[1] == model


async def test_a_page_of_another_origin_can_read_the_files_name(world: World) -> None:
    headers = {"Accept": "text/csv", "Origin": world.origins[0]}
    answer = await (await world.user()).get(USAGE, headers=headers)
    assert "Content-Disposition" in answer.headers["Access-Control-Expose-Headers"]
