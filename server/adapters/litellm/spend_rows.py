"""Parses the rows of LiteLLM's spend log. Pure.

A row that cannot be parsed is an error and never left out, since its cost would be lost. The shapes are those of
LiteLLM 1.106; fields that are optional here are missing in rows of older releases."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from server.ports import ModelCall, ModelPrice

UNNAMED_MODEL = "unknown"
"""The model of calls without one: they were refused before LiteLLM chose a deployment."""


class UnreadableRowError(Exception):
    """`field` of a row is missing or invalid. The value is not included, since it may be a secret."""

    def __init__(self, field: str) -> None:
        self.field = field
        super().__init__(f"a row of LiteLLM's spend log has no readable {field}")


def call_of(row: Mapping[str, Any]) -> ModelCall:
    """The model call of a row. Raises UnreadableRowError."""
    metadata = _metadata(row)
    usage, prompt = metadata.within("usage_object"), metadata.within("usage_object", "prompt_tokens_details")
    cached = prompt.get("cached_tokens")
    if cached is None:
        cached = metadata.within("additional_usage_values").get("cache_read_input_tokens")
    return ModelCall(
        request_id=_text(row, "request_id"),
        key_hash=_text(row, "api_key"),
        model=_model(row),
        outcome=_outcome(row.get("status") or metadata.get("status")),
        prompt_tokens=_count(row.get("prompt_tokens"), "prompt_tokens"),
        completion_tokens=_count(row.get("completion_tokens"), "completion_tokens"),
        cached_tokens=_count(cached, "cached_tokens"),
        reasoning_tokens=_count(usage.within("completion_tokens_details").get("reasoning_tokens"), "reasoning_tokens"),
        cost=_money(row.get("spend"), "spend"),
        price=_price(metadata.within("model_map_information", "model_map_value")),
        started_at=_moment(row, "startTime"),
        ended_at=_moment(row, "endTime"),
    )


class _Tree(dict[str, Any]):
    """Nested objects, each of which may be null or missing."""

    def within(self, *names: str) -> "_Tree":
        found: object = self
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return _Tree(found) if isinstance(found, dict) else _Tree()


def _metadata(row: Mapping[str, Any]) -> _Tree:
    """The row's metadata, which some releases send as JSON text."""
    found = row.get("metadata")
    if isinstance(found, str):
        try:
            found = json.loads(found, parse_float=Decimal)
        except ValueError as cause:
            raise UnreadableRowError("metadata") from cause
    return _Tree({"metadata": found}).within("metadata")


def _text(row: Mapping[str, Any], field: str) -> str:
    found = row.get(field)
    if not isinstance(found, str) or not found:
        raise UnreadableRowError(field)
    return found


def _model(row: Mapping[str, Any]) -> str:
    """The model's name in settings and requests, which may differ from the provider's."""
    found = row.get("model_group") or row.get("model") or UNNAMED_MODEL
    if not isinstance(found, str):
        raise UnreadableRowError("model_group")
    return found


def _outcome(status: object) -> Literal["success", "failure"]:
    """A missing status is success: older releases have no such column."""
    if status is None or status == "success":
        return "success"
    if status == "failure":
        return "failure"
    raise UnreadableRowError("status")


def _count(found: object, field: str) -> int:
    if found is None:
        return 0
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise UnreadableRowError(field)
    return found


def _money(found: object, field: str) -> Decimal:
    """An amount. NaN and Infinity are parsed as floats, which are refused."""
    if isinstance(found, bool) or not isinstance(found, int | Decimal) or found < 0:
        raise UnreadableRowError(field)
    return Decimal(found)


def _price(listed: Mapping[str, Any]) -> ModelPrice | None:
    """The price of a call. Without a listed price, cached tokens are charged like others (measured)."""
    prompt, completion = listed.get("input_cost_per_token"), listed.get("output_cost_per_token")
    if prompt is None or completion is None:
        return None
    cached = listed.get("cache_read_input_token_cost")
    return ModelPrice(
        _money(prompt, "input_cost_per_token"),
        _money(completion, "output_cost_per_token"),
        _money(prompt if cached is None else cached, "cache_read_input_token_cost"),
    )


def _moment(row: Mapping[str, Any], field: str) -> datetime:
    """Times without a zone are UTC."""
    try:
        moment = datetime.fromisoformat(_text(row, field))
    except ValueError as cause:
        raise UnreadableRowError(field) from cause
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
