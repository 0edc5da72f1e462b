"""Rows of LiteLLM's spend log in the shape of release 1.106, and a log that returns them page by page."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

KEY = "ab" * 32
OTHER_KEY = "cd" * 32
NOON = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)


def row(request_id: str, after: float = 0.0, **changed: Any) -> dict[str, Any]:
    """A call that began `after` seconds after noon."""
    began = NOON + timedelta(seconds=after)
    return {
        "request_id": request_id,
        "call_type": "acompletion",
        "api_key": KEY,
        "spend": 0.0303,
        "total_tokens": 1005,
        "prompt_tokens": 1000,
        "completion_tokens": 5,
        "startTime": began.isoformat(timespec="milliseconds"),
        "endTime": (began + timedelta(seconds=2)).isoformat(timespec="milliseconds"),
        "model": "openai/gpt-4",
        "model_group": "gpt-4",
        "status": "success",
        "metadata": {
            "status": None,
            "additional_usage_values": {},
            "usage_object": {
                "prompt_tokens_details": {"text_tokens": None, "cached_tokens": 128},
                "completion_tokens_details": {"text_tokens": None, "reasoning_tokens": 3},
            },
            "model_map_information": {
                "model_map_key": "openai/gpt-4",
                "model_map_value": {
                    "input_cost_per_token": 3e-05,
                    "output_cost_per_token": 6e-05,
                    "cache_read_input_token_cost": 1.5e-05,
                },
            },
        },
    } | changed


class Pages:
    """`/spend/logs/v2` over rows that may grow between pages."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = list(rows)

    def __call__(self, query: dict[str, str]) -> tuple[int, object]:
        first, last = (datetime.fromisoformat(query[name] + "+00:00") for name in ("start_date", "end_date"))
        size, number = int(query["page_size"]), int(query["page"])
        if size > 100:
            return 422, {"detail": [{"type": "less_than_equal", "loc": ["query", "page_size"]}]}
        found = [
            row
            for row in self.rows
            if row["api_key"] == query["api_key"] and first <= datetime.fromisoformat(row["startTime"]) <= last
        ]
        found.sort(key=lambda row: str(row["startTime"]))
        page = found[size * (number - 1) : size * number]
        return 200, {"data": page, "total": len(found), "page": number, "page_size": size, "total_pages": 1}
