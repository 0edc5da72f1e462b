"""Examples of responses for the OpenAPI document."""

from typing import Final

from server.protocol.shapes import Json

_GPT_4: Final[Json] = {
    "model": "gpt-4",
    "model_calls": 3,
    "prompt_tokens": 12650,
    "completion_tokens": 94,
    "cached_tokens": 8192,
    "reasoning_tokens": 0,
    "tokens": 12744,
    "cost": "0.26226",
}
_SPENT: Final[Json] = {"messages": 4, "tokens": 8480, "cost": "0.17436"}

USAGE: Final[Json] = {
    "total": {"messages": 310, "tokens": 655210, "cost": "14.2091"},
    "today": _SPENT,
    "range": {"from": "2026-11-01", "to": "2026-11-30", **_SPENT, "background": {"cost": "0.0879"}},
    "models": [_GPT_4],
    "days": [{"date": "2026-11-26", **_SPENT, "models": [_GPT_4]}],
    "budget": {
        "limit": "10",
        "spent": "0.26226",
        "remaining": "9.73774",
        "period": "30d",
        "started_at": "2026-11-24T00:00:00Z",
        "resets_at": "2026-12-24T00:00:00Z",
    },
    "projection": {"until": "2026-12-24T00:00:00Z", "cost": "3.14712"},
    "currency": "USD",
    "timezone": "UTC",
}
