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

ADMIN_USER: Final[Json] = {
    "id": "6f0d2a52-6c5e-4a6b-9d0e-3a8f6f6b1c11",
    "email": "ada@example.com",
    "name": "Ada",
    "agent_status": "active",
    "created_at": "2026-11-24T09:12:44Z",
    "status_reason": None,
    "is_admin": False,
    "plan": "pro",
    "agent_id": "agent-1f8f7d0c-4a1c-4b7e-8a57-7a0f4f7d9a10",
    "updated_at": "2026-11-26T18:03:10Z",
    "limits": {
        "budget": "10",
        "period": "30d",
        "tokens_per_minute": None,
        "requests_per_minute": None,
        "models": [],
    },
    "budget": USAGE["budget"],
    "total": USAGE["total"],
    "open_turns": 0,
    "connections": 2,
    "last_message_at": "2026-11-26T18:03:02Z",
    "errors": [
        {
            "turn_id": "0b1c9e8e-7a54-4f35-8a3a-6f5f2e6a7b01",
            "at": "2026-11-25T07:30:12Z",
            "code": "letta_unavailable",
            "message": "The agent service is not reachable right now.",
        }
    ],
}

ACTION: Final[Json] = {
    "id": 42,
    "at": "2026-11-26T18:10:00Z",
    "actor_id": "0d3f7a3e-9f0b-4c39-8d8e-6a2f0e7f9b02",
    "source": "203.0.113.7",
    "action": "set_plan",
    "user_id": "6f0d2a52-6c5e-4a6b-9d0e-3a8f6f6b1c11",
    "details": {"plan": "pro"},
    "outcome": "done",
    "reason": None,
    "ended_at": "2026-11-26T18:10:01Z",
}
