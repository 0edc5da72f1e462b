"""An example of each request and response, for the OpenAPI document, and of the conversation that they are about."""

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from server.api import admin_models, admin_schemas, models, schemas
from server.protocol.shapes import Json

USER_ID: Final = "6f0d2a52-6c5e-4a6b-9d0e-3a8f6f6b1c11"
TURN_ID: Final = "0b1c9e8e-7a54-4f35-8a3a-6f5f2e6a7b01"
CLIENT_MESSAGE_ID: Final = "message-1"
SENT_AT: Final = "2026-11-26T18:03:02.114Z"
_ENDED_AT: Final = "2026-11-26T18:03:04.820Z"

USER_MESSAGE: Final[Json] = {
    "id": "3f4b8f0e-5b5e-4e0e-9a58-0c6a6e4f2d10",
    "turn_id": TURN_ID,
    "role": "user",
    "content": "Remember that I like green tea.",
    "status": "complete",
    "tokens_used": None,
    "cost": None,
    "created_at": SENT_AT,
}
REPLY: Final[Json] = {
    "id": "a2d4d8a8-0f55-4f52-8f6f-2b8f3c9d5e20",
    "turn_id": TURN_ID,
    "role": "assistant",
    "content": "Noted: green tea.",
    "status": "complete",
    "tokens_used": 4210,
    "cost": "0.127140",
    "created_at": _ENDED_AT,
}
USAGE_OF_TURN: Final[Json] = {
    "prompt_tokens": 4200,
    "completion_tokens": 10,
    "total_tokens": 4210,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
    "model_calls": 1,
}
COMPLETED: Final[Json] = {
    "id": TURN_ID,
    "status": "completed",
    "attempt": 1,
    "client_message_id": CLIENT_MESSAGE_ID,
    "user_message": USER_MESSAGE,
    "message": REPLY,
    "usage": USAGE_OF_TURN,
    "cost": "0.12714",
    "cost_status": "estimated",
    "error": None,
    "reason": None,
    "queue_position": None,
    "created_at": SENT_AT,
    "started_at": "2026-11-26T18:03:02.120Z",
    "finished_at": _ENDED_AT,
}

_EMAIL: Final = "ada@example.com"
_PASSWORD: Final = "a long password"  # noqa: S105 - an example
_PLAN: Final[Json] = {
    "budget": "10",
    "period": "30d",
    "tokens_per_minute": None,
    "requests_per_minute": None,
    "models": [],
}
_USER: Final[Json] = {
    "id": USER_ID,
    "email": _EMAIL,
    "name": "Ada",
    "agent_status": "active",
    "created_at": "2026-11-24T09:12:44Z",
}
_PROFILE: Final[Json] = {
    **_USER,
    "agent_id": "agent-1f8f7d0c-4a1c-4b7e-8a57-7a0f4f7d9a10",
    "updated_at": "2026-11-26T18:03:10Z",
}
_API_KEY: Final[Json] = {
    "id": "b7a1c0de-2b0e-4a57-9c1a-3f6f2a9d1e55",
    "name": "nightly report",
    "prefix": "chat_1f0c5a7e93b2",
    "scopes": ["read", "chat"],
    "created_at": "2026-11-25T10:00:00Z",
    "expires_at": None,
    "last_used_at": "2026-11-26T02:00:00Z",
}
_SIGN_IN: Final = "c1d2e3f4-0a1b-4c2d-8e3f-4a5b6c7d8e9f"
_BLOCK: Final[Json] = {
    "label": "human",
    "value": "Likes green tea.",
    "limit": 20000,
    "description": "What is known about the user.",
    "updated_at": _ENDED_AT,
}
_PASSAGE: Final[Json] = {
    "id": "passage-8d1e7a52-3f5b-4e0e-9a58-0c6a6e4f2d10",
    "text": "The green tea is a Sencha from Uji.",
    "created_at": _ENDED_AT,
}
_ARCHIVAL: Final[Json] = {"data": [_PASSAGE], "has_more": False, "next_cursor": None}
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
_BUDGET: Final[Json] = {
    "limit": "10",
    "spent": "0.26226",
    "remaining": "9.73774",
    "period": "30d",
    "started_at": "2026-11-24T00:00:00Z",
    "resets_at": "2026-12-24T00:00:00Z",
}
_TOTAL: Final[Json] = {"messages": 310, "tokens": 655210, "cost": "14.2091"}
_RANGE: Final[Json] = {"from": "2026-11-01", "to": "2026-11-30", **_SPENT, "background": {"cost": "0.0879"}}
_CURRENCY: Final[Json] = {"currency": "USD", "timezone": "UTC"}
_ADMIN_USER: Final[Json] = {**_PROFILE, "status_reason": None, "is_admin": False, "plan": "pro"}
_ACTION: Final[Json] = {
    "id": 42,
    "at": "2026-11-26T18:10:00Z",
    "actor_id": "0d3f7a3e-9f0b-4c39-8d8e-6a2f0e7f9b02",
    "actor_email": "grace@example.com",
    "source": "203.0.113.7",
    "action": "set_plan",
    "user_id": USER_ID,
    "user_email": _EMAIL,
    "details": {"plan": "pro"},
    "outcome": "done",
    "reason": None,
    "ended_at": "2026-11-26T18:10:01Z",
}

REQUESTS: Final[Mapping[type[BaseModel], Json]] = {
    models.Register: {"email": _EMAIL, "password": _PASSWORD, "name": "Ada"},
    models.Login: {"email": _EMAIL, "password": _PASSWORD},
    models.Refresh: {"refresh_token": "kbXg2mWnT0qd"},
    models.Logout: {"scope": "local"},
    models.Recover: {"email": _EMAIL},
    models.Resend: {"email": _EMAIL, "type": "signup"},
    models.Verify: {"email": _EMAIL, "token": "123456", "type": "signup"},
    models.Reset: {"email": _EMAIL, "token": "123456", "password": _PASSWORD},
    models.ChangePassword: {"password": _PASSWORD, "current_password": "an older one"},
    models.ChangeEmail: {"email": "ada@example.org", "current_password": _PASSWORD},
    models.SendMessage: {"content": USER_MESSAGE["content"], "client_message_id": CLIENT_MESSAGE_ID, "stream": False},
    models.CancelTurn: {"turn_id": TURN_ID},
    models.UpdateBlock: {"value": "Likes green tea, without sugar."},
    models.PassageText: {"text": _PASSAGE["text"]},
    models.UpdateProfile: {"name": "Ada Lovelace"},
    models.DeleteUser: {"current_password": _PASSWORD},
    models.CreateApiKey: {"name": "nightly report", "scopes": ["read", "chat"], "expires_at": "2027-11-26T00:00:00Z"},
    admin_models.CreateUser: {"email": _EMAIL, "name": "Ada", "plan": "pro"},
    admin_models.ChangePlan: {"budget": "20", "period": "30d"},
    admin_models.BlockUser: {"reason": "Asked to pause the account."},
    admin_models.SetAdmin: {"is_admin": True},
    admin_models.RotateKey: {"at_once": True},
}
"""By the model of the body."""

_READY: Final[Json] = {
    "status": "ready",
    "version": "0.1.0",
    "checks": {"supabase": {"status": "up", "latency_ms": 3.2, "error": None}},
}

RESPONSES: Final[Mapping[type[BaseModel], Json]] = {
    schemas.SignedIn: {
        "access_token": "<access token>",
        "token_type": "bearer",
        "expires_in": 3600,
        "expires_at": "2026-11-26T19:03:02Z",
        "refresh_token": "kbXg2mWnT0qd",
        "user": _USER,
    },
    schemas.ConfirmationRequired: {"status": "confirmation_required", "email": _EMAIL},
    schemas.MailRequested: {"status": "mail_requested", "email": _EMAIL},
    schemas.EmailChanged: {"status": "changed", "email": "ada@example.org"},
    schemas.User: _USER,
    schemas.Profile: _PROFILE,
    schemas.Deleting: {"status": "deleting"},
    schemas.SignIns: {
        "data": [
            {
                "id": _SIGN_IN,
                "current": True,
                "created_at": "2026-11-26T18:00:00Z",
                "last_seen_at": "2026-11-26T18:00:00Z",
                "user_agent": "Mozilla/5.0",
                "address": "203.0.113.7",
            }
        ],
        "connections": [
            {"kind": "websocket", "opened_at": SENT_AT, "session_id": _SIGN_IN, "api_key_id": None},
        ],
    },
    schemas.NewApiKey: {**_API_KEY, "last_used_at": None, "key": f"{_API_KEY['prefix']}_<64 hexadecimal digits>"},
    schemas.ApiKeys: {"data": [_API_KEY]},
    schemas.Turn: COMPLETED,
    schemas.History: {
        "data": [{**REPLY, "cursor": "cDE3"}, {**USER_MESSAGE, "cursor": "cDE2"}],
        "has_more": False,
        "next_cursor": None,
    },
    schemas.Ticket: {"ticket": "<ticket>", "expires_at": "2026-11-26T18:04:02Z"},
    schemas.Agent: {
        "status": "active",
        "reason": None,
        "agent_id": _PROFILE["agent_id"],
        "model": "gpt-4",
        "turn": {"turn_id": TURN_ID, "text": "Noted: "},
        "queued": 0,
        "updated_at": _PROFILE["updated_at"],
    },
    schemas.AgentMemory: {
        "blocks": [_BLOCK],
        "archival": _ARCHIVAL,
        "context": {"window": 32000, "used": 4210, "system": 2900, "blocks": 310, "tools": 800, "messages": 200},
    },
    schemas.Block: _BLOCK,
    schemas.Archival: _ARCHIVAL,
    schemas.Passage: _PASSAGE,
    schemas.UserUsage: {
        "total": _TOTAL,
        "today": _SPENT,
        "range": _RANGE,
        "models": [_GPT_4],
        "days": [{"date": "2026-11-26", **_SPENT, "models": [_GPT_4]}],
        "budget": _BUDGET,
        "projection": {"until": "2026-12-24T00:00:00Z", "cost": "3.14712"},
        **_CURRENCY,
    },
    schemas.About: {
        "version": "0.1.0",
        "environment": "production",
        "model": {"name": "gpt-4", "is_demo": False},
        "sign_up": {"is_open": True, "domains": None, "allows_anonymous": False},
        "demo_user": None,
    },
    schemas.Health: {"status": "ok"},
    schemas.Ready: _READY,
    admin_schemas.ServiceHealth: {
        "instance": _READY,
        "checked_at": "2026-11-26T18:03:02Z",
        "checks": [
            {
                "service": "redis",
                "name": "version",
                "level": "fail",
                "message": "Redis 6.0 is too old",
                "remedy": "Use Redis 6.2 or newer.",
            }
        ],
    },
    admin_schemas.AdminUser: _ADMIN_USER,
    admin_schemas.AdminUsers: {
        "data": [{**_ADMIN_USER, "budget": _BUDGET, "total": _TOTAL}],
        "has_more": False,
        "next_cursor": None,
    },
    admin_schemas.AdminUserDetails: {
        **_ADMIN_USER,
        "limits": _PLAN,
        "budget": _BUDGET,
        "total": _TOTAL,
        "open_turns": 0,
        "connections": 2,
        "last_message_at": "2026-11-26T18:03:02Z",
        "errors": [
            {
                "turn_id": TURN_ID,
                "at": "2026-11-25T07:30:12Z",
                "code": "letta_unavailable",
                "message": "The agent service is not reachable right now.",
            }
        ],
    },
    admin_schemas.AdminPlan: {
        "plan": "pro",
        "limits": _PLAN,
        "spent": _BUDGET["spent"],
        "resets_at": _BUDGET["resets_at"],
    },
    admin_schemas.Plans: {"default": "free", "plans": {"free": {**_PLAN, "budget": "1"}, "pro": _PLAN}},
    admin_schemas.UsageOfAll: {
        "range": _RANGE,
        "models": [_GPT_4],
        "days": [{"date": "2026-11-26", **_SPENT, "users": 2, "models": [_GPT_4]}],
        **_CURRENCY,
    },
    admin_schemas.Actions: {"data": [_ACTION], "has_more": False, "next_cursor": None},
}
"""By the model of the answer."""
