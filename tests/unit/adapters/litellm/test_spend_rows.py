"""Parsing rows of the spend log: every digit is kept, optional fields may be missing, unreadable rows are errors."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from server.adapters.litellm.spend_rows import UnreadableRowError, call_of
from server.ports import ModelCall, ModelPrice
from tests.unit.adapters.litellm.spend import KEY, row


def read(**changed: Any) -> ModelCall:
    """Through JSON, as the client reads it."""
    return call_of(json.loads(json.dumps(row("one") | changed), parse_float=Decimal))


def test_a_call_is_read_with_every_digit() -> None:
    assert read() == ModelCall(
        request_id="one",
        key_hash=KEY,
        model="gpt-4",
        outcome="success",
        prompt_tokens=1000,
        completion_tokens=5,
        cached_tokens=128,
        reasoning_tokens=3,
        cost=Decimal("0.0303"),
        price=ModelPrice(Decimal("0.00003"), Decimal("0.00006"), Decimal("0.000015")),
        started_at=datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC),
        ended_at=datetime(2026, 11, 26, 12, 0, 2, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("spend", "cost"), [("0.30000000000000004", "0.30000000000000004"), ("1.5e-07", "1.5E-7"), ("0", "0"), ("2", "2")]
)
def test_the_cost_keeps_the_text_it_was_written_in(spend: str, cost: str) -> None:
    text = json.dumps(row("one", spend="SPEND")).replace('"SPEND"', spend)
    assert str(call_of(json.loads(text, parse_float=Decimal)).cost) == cost


@pytest.mark.parametrize(
    "time", ["2026-11-26T13:00:00.094+01:00", "2026-11-26T12:00:00.094000Z", "2026-11-26T12:00:00.094"]
)
def test_times_in_every_notation_become_utc(time: str) -> None:
    assert read(startTime=time).started_at == datetime(2026, 11, 26, 12, 0, 0, 94_000, tzinfo=UTC)
    assert read(startTime=time).started_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("model_group", "model", "name"),
    [("gpt-4", "openai/gpt-4", "gpt-4"), ("", "openai/gpt-4", "openai/gpt-4"), (None, "m", "m"), ("", "", "unknown")],
)
def test_the_model_has_the_requested_name(model_group: str | None, model: str, name: str) -> None:
    assert read(model_group=model_group, model=model).model == name


@pytest.mark.parametrize(
    ("status", "within", "outcome"),
    [
        ("success", None, "success"),
        (None, None, "success"),
        (None, "failure", "failure"),
        ("failure", "failure", "failure"),
    ],
)
def test_no_status_is_success(status: str | None, within: str | None, outcome: str) -> None:
    assert read(status=status, metadata={"status": within}).outcome == outcome


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"usage_object": None, "model_map_information": None, "additional_usage_values": None},
        {"usage_object": {}, "model_map_information": {}, "additional_usage_values": {}},
        {
            "usage_object": {"prompt_tokens_details": None, "completion_tokens_details": None},
            "model_map_information": {"model_map_value": None},
        },
        {
            "usage_object": {"prompt_tokens_details": {"cached_tokens": None}, "completion_tokens_details": {}},
            "model_map_information": {"model_map_value": {"input_cost_per_token": 3e-05}},
            "additional_usage_values": {"cache_read_input_tokens": None},
        },
        {"usage_object": "none", "model_map_information": [], "additional_usage_values": 3},
        "{}",
    ],
)
def test_fields_that_a_release_does_not_have_are_none_or_zero(metadata: object) -> None:
    call = read(metadata=metadata)
    assert (call.cached_tokens, call.reasoning_tokens, call.price) == (0, 0, None)
    assert (call.prompt_tokens, call.cost) == (1000, Decimal("0.0303"))


def test_cached_tokens_may_be_in_another_field() -> None:
    assert read(metadata={"additional_usage_values": {"cache_read_input_tokens": 64}}).cached_tokens == 64


def test_metadata_may_be_json_text() -> None:
    assert read(metadata=json.dumps(row("one")["metadata"])) == read()


def test_cached_tokens_without_a_price_cost_as_much_as_others() -> None:
    listed = {"input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07, "cache_read_input_token_cost": None}
    price = read(metadata={"model_map_information": {"model_map_value": listed}}).price
    assert price == ModelPrice(Decimal("1.5E-7"), Decimal("6E-7"), Decimal("1.5E-7"))


UNREADABLE: dict[str, tuple[object, ...]] = {
    "request_id": (None, "", 7),
    "api_key": (None, 7),
    "spend": (None, "0.1", True, -1, -0.5, float("nan"), float("inf"), {}),
    "prompt_tokens": ("5", 1.5, -1, True),
    "startTime": (None, "", "noon", 1764158400),
    "endTime": (None,),
    "status": ("perhaps",),
    "model_group": (4,),
    "metadata": ("{not JSON",),
}


@pytest.mark.parametrize(
    ("field", "found"), [(field, found) for field, values in UNREADABLE.items() for found in values]
)
def test_an_unreadable_row_is_an_error_that_names_only_the_field(field: str, found: object) -> None:
    with pytest.raises(UnreadableRowError) as raised:
        read(**{field: found})
    assert raised.value.field == field


def test_an_invalid_price_or_number_in_the_metadata_is_an_error_too() -> None:
    listed = {"input_cost_per_token": "cheap", "output_cost_per_token": 1}
    for metadata in (
        {"model_map_information": {"model_map_value": listed}},
        {"usage_object": {"prompt_tokens_details": {"cached_tokens": "many"}}},
    ):
        with pytest.raises(UnreadableRowError):
            read(metadata=metadata)
