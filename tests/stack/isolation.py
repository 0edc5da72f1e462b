"""Who must not reach what is another user's: every endpoint, frame, cursor and ticket, for every foreign identity.

Data only. `test_isolation.py` sends each cell of this table to a real server, and
`tests/unit/api/test_isolation_table.py` fails for an endpoint, a frame or a placeholder that has no row here. What is
attacked belongs to Ada: `{turn_id}` in a path, query or body stands for hers, see `PLACEHOLDERS`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from server.http.routes import Route


class Foreigner(StrEnum):
    """Who sends a request."""

    # Users of the platform, who are served with what is theirs.
    OTHER_USER = "another user"
    OTHER_KEY = "another user's API key"
    CLAIMED_ADMIN = "a user who claims to be an admin"
    """By user_metadata, which users write themselves, and by a token from the time when they were one."""

    # In Ada's own name, but not to be accepted.
    EXPIRED = "an expired token"
    SIGNED_OUT = "a token that was signed out"
    SMALL_KEY = "an API key without the scope"
    REVOKED_KEY = "a revoked API key"
    FORGED = "a token with a forged signature"
    OTHER_PROJECT = "a token of another project"

    NOBODY = "nobody"
    BLOCKED = "a blocked admin"
    DELETED = "a deleted admin"


STRANGERS: Final = (Foreigner.OTHER_USER, Foreigner.OTHER_KEY, Foreigner.CLAIMED_ADMIN)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status and error code of a refused request; `close`, the close code of a refused socket."""

    status: int
    code: str
    close: int | None = None


Answer = Refusal | int | tuple[int, ...]

UNAUTHORIZED: Final = Refusal(401, "unauthorized", 4500)
FORBIDDEN: Final = Refusal(403, "forbidden", 4500)
WRONG_CODE: Final = Refusal(403, "otp_expired")
NOT_FOUND: Final = Refusal(404, "not_found")

REFUSALS: Final[dict[Foreigner, Refusal]] = {
    Foreigner.NOBODY: UNAUTHORIZED,
    Foreigner.EXPIRED: Refusal(401, "token_expired", 4001),
    Foreigner.SIGNED_OUT: UNAUTHORIZED,
    Foreigner.SMALL_KEY: FORBIDDEN,
    Foreigner.REVOKED_KEY: UNAUTHORIZED,
    Foreigner.FORGED: UNAUTHORIZED,
    Foreigner.OTHER_PROJECT: UNAUTHORIZED,
    Foreigner.BLOCKED: Refusal(403, "account_blocked", 4503),
    Foreigner.DELETED: UNAUTHORIZED,
}
"""Who is refused everywhere, and how."""
REFUSALS_OF_TICKETS: Final = REFUSALS | {Foreigner.EXPIRED: UNAUTHORIZED}
"""The same of those who present a ticket: of nobody, one of Ada's that was redeemed before."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request with Ada's ids. `answer`: what a stranger gets, or from a public endpoint everybody: a refusal, or
    the status of an answer about themselves, in which nothing is Ada's; or one of several."""

    answer: Answer
    body: Any = None
    query: dict[str, str] = field(default_factory=dict)
    path: dict[str, str] = field(default_factory=dict)
    """Values in the path, where they are not the placeholders of the same names."""
    headers: dict[str, str] = field(default_factory=dict)
    ends_sender: bool = False
    """It ends the sender's own sign-in or account, so strangers send it from an account that is used only here."""
    needs_sign_in: bool = False
    """API keys are refused, whatever their scopes."""


def _own(status: int = 200, body: Any = None, **query: str) -> tuple[Attempt, ...]:
    """A stranger gets, or changes, what is theirs."""
    return (Attempt(status, body, query),)


def _for_admins(body: Any = None, **query: str) -> tuple[Attempt, ...]:
    return (Attempt(FORBIDDEN, body, query),)


_NEW_PASSWORD: Final = "Passw0rd-of-a-thief"
_USER: Final = "/api/v1/admin/users/{user_id}"

ENDPOINTS: Final[dict[str, tuple[Attempt, ...]]] = {
    # -- auth ------------------------------------------------------------------------------------------------------
    "POST /api/v1/auth/register": (Attempt(202, {"email": "{email}", "password": _NEW_PASSWORD, "name": "Eve"}),),
    "POST /api/v1/auth/login": (Attempt(UNAUTHORIZED, {"email": "{email}", "password": _NEW_PASSWORD}),),
    "POST /api/v1/auth/refresh": (Attempt(UNAUTHORIZED, {"refresh_token": "{signed_out_refresh_token}"}),),
    "GET /api/v1/auth/me": _own(),
    "POST /api/v1/auth/logout": (Attempt(204, {"scope": "global"}, ends_sender=True, needs_sign_in=True),),
    "POST /api/v1/auth/verify": tuple(
        Attempt(WRONG_CODE, {"email": "{email}", "token": "000000", "type": kind})
        for kind in ("signup", "recovery", "magiclink", "email_change")
    ),
    "POST /api/v1/auth/resend": (Attempt(202, {"email": "{email}", "type": "email_change"}),),
    "POST /api/v1/auth/recover": (Attempt(202, {"email": "{email}"}),),
    "POST /api/v1/auth/reset": (
        Attempt(WRONG_CODE, {"email": "{email}", "token": "000000", "password": _NEW_PASSWORD}),
    ),
    "POST /api/v1/auth/password": (Attempt(204, {"password": _NEW_PASSWORD}, ends_sender=True, needs_sign_in=True),),
    "POST /api/v1/auth/email": (Attempt(202, {"email": "{email}"}, needs_sign_in=True),),
    "GET /api/v1/auth/sessions": _own(),
    "DELETE /api/v1/auth/sessions/{session_id}": (Attempt(NOT_FOUND),),
    # -- chat ------------------------------------------------------------------------------------------------------
    "POST /api/v1/chat/message": (
        Attempt(200, {"content": "ECHO mine", "client_message_id": "{client_message_id}", "stream": False}),
    ),
    "GET /api/v1/chat/history": (
        Attempt(200),
        Attempt(200, query={"before": "{history_cursor}"}),
        Attempt(200, query={"after": "{history_cursor}"}),
        Attempt(200, query={"query": "bees"}),
        Attempt(200, query={"query": "bees", "before": "{history_cursor}"}),
    ),
    "GET /api/v1/chat/turns/{turn_id}": (
        Attempt(NOT_FOUND),
        Attempt(NOT_FOUND, path={"turn_id": "{running_turn_id}"}),
        Attempt(NOT_FOUND, path={"turn_id": "{message_id}"}),
    ),
    "POST /api/v1/chat/turns/{turn_id}/retry": (Attempt(NOT_FOUND, path={"turn_id": "{failed_turn_id}"}),),
    "POST /api/v1/chat/cancel": (Attempt(NOT_FOUND, {"turn_id": "{running_turn_id}"}), Attempt(NOT_FOUND, {})),
    "POST /api/v1/chat/ticket": _own(),
    "GET /api/v1/chat/events": (
        Attempt(200, query={"after": "{event_cursor}"}),
        Attempt(200, headers={"Last-Event-ID": "{event_cursor}"}),
        Attempt(200, headers={"Last-Event-ID": "{proven_cursor}"}),
    ),
    "GET /api/v1/chat/stream": (
        Attempt(101, query={"after": "{event_cursor}"}),
        Attempt(101, query={"after": "{first_cursor}"}),
    ),
    # -- agent -----------------------------------------------------------------------------------------------------
    "GET /api/v1/agent/status": _own(),
    "GET /api/v1/agent/memory": (Attempt(200), Attempt(200, query={"before": "{passage_id}", "query": "bees"})),
    "PATCH /api/v1/agent/memory/{label}": _own(200, {"value": "Mine."}),
    "GET /api/v1/agent/memory/archival": (Attempt(200), Attempt(200, query={"before": "{passage_id}"})),
    "POST /api/v1/agent/memory/archival": _own(201, {"text": "Mine."}),
    "PATCH /api/v1/agent/memory/archival/{passage_id}": (Attempt(NOT_FOUND, {"text": "Mine."}),),
    "DELETE /api/v1/agent/memory/archival/{passage_id}": (Attempt(NOT_FOUND),),
    # -- user ------------------------------------------------------------------------------------------------------
    "GET /api/v1/user/profile": _own(),
    "PATCH /api/v1/user/profile": _own(200, {"name": "Mallory"}),
    "GET /api/v1/user/usage": _own(),
    "GET /api/v1/user/api-keys": _own(),
    "POST /api/v1/user/api-keys": _own(201, {"name": "script", "scopes": ["read"]}),
    "DELETE /api/v1/user/api-keys/{key_id}": (Attempt(NOT_FOUND),),
    "GET /api/v1/user/export": _own(),
    "DELETE /api/v1/user": (Attempt((202, 204), {}, ends_sender=True, needs_sign_in=True),),
    "DELETE /api/v1/chat/history": _own(204),
    # -- admin -----------------------------------------------------------------------------------------------------
    "GET /api/v1/admin/users": _for_admins(query="{email}"),
    "POST /api/v1/admin/users": _for_admins({"email": "{email}", "password": _NEW_PASSWORD}),
    f"GET {_USER}": _for_admins(),
    f"PATCH {_USER}/plan": _for_admins({"budget": "0"}),
    f"POST {_USER}/block": _for_admins({}),
    f"POST {_USER}/unblock": _for_admins(),
    f"POST {_USER}/admin": _for_admins({"is_admin": True}),
    f"POST {_USER}/rotate-key": _for_admins({"at_once": True}),
    f"POST {_USER}/repair": _for_admins(),
    f"GET {_USER}/export": _for_admins(),
    f"DELETE {_USER}": _for_admins(),
    "GET /api/v1/admin/plans": _for_admins(),
    "GET /api/v1/admin/usage": _for_admins(),
    "GET /api/v1/admin/health": _for_admins(),
    "GET /api/v1/admin/audit": _for_admins(user_id="{user_id}"),
    # -- operations ------------------------------------------------------------------------------------------------
    "GET /api/v1/about": _own(),
    "GET /health": _own(),
    "GET /ready": _own(),
    "GET /metrics": _own(),
    "GET /openapi.json": _own(),
    "GET /asyncapi.json": _own(),
    "GET /docs": _own(),
    "GET /": _own(),
    "GET /pages/{name}": _own(),
    "GET /auth/callback": _own(200, code="{forged_token}", token_hash="{forged_token}"),
}
"""Endpoint → the requests that are sent to it."""

TICKETED: Final[dict[str, tuple[Attempt, ...]]] = {
    "GET /api/v1/chat/events": (
        Attempt(200, query={"after": "{event_cursor}"}),
        Attempt(200, headers={"Last-Event-ID": "{event_cursor}"}),
        Attempt(UNAUTHORIZED, headers={"Last-Event-ID": "{proven_cursor}"}),  # the proof of another ticket's stream
    ),
}
"""The same for endpoints to which a ticket is sent in place of a token; the socket's are those of ENDPOINTS."""

FRAMES: Final[dict[str, tuple[tuple[dict[str, Any], str], ...]]] = {
    "cancel": (
        ({"type": "cancel", "turn_id": "{running_turn_id}"}, "not_found"),
        ({"type": "cancel"}, "not_found"),
    ),
    "retry": (({"type": "retry", "turn_id": "{failed_turn_id}"}, "not_found"),),
    "message": (
        ({"type": "message", "client_message_id": "{failed_client_message_id}", "content": "ECHO mine"}, "ack"),
        ({"type": "message", "client_message_id": "interrupt", "content": "ECHO mine", "on_busy": "interrupt"}, "ack"),
    ),
    "auth": (({"type": "auth", "token": "{forged_token}"}, "unauthorized"),),
    "ping": (({"type": "ping"}, "pong"),),
}
"""Type of a frame → frames with Ada's ids, and what a stranger's own connection is answered: an error's code, or the
type of another frame."""

PLACEHOLDERS: Final = {
    "user_id": "Ada's id",
    "email": "her address",
    "turn_id": "a completed turn",
    "message_id": "its reply",
    "client_message_id": "her own id of its message",
    "failed_turn_id": "a turn that may be retried",
    "failed_client_message_id": "her own id of its message",
    "running_turn_id": "a turn that is running",
    "history_cursor": "the position of her newest message",
    "first_cursor": "before the first event of her session",
    "event_cursor": "an event of her session",
    "proven_cursor": "the same, with the proof of her event stream",
    "passage_id": "a passage of her archival memory",
    "session_id": "her sign-in",
    "key_id": "her API key",
    "signed_out_refresh_token": "a refresh token of hers, signed out",
    "forged_token": "her access token with another signature",
    "label": "a memory block that everybody has",
    "name": "a part of the pages",
}


def expected(route: Route, attempt: Attempt, who: Foreigner) -> Answer:
    """The cell of the table."""
    if who is Foreigner.OTHER_KEY and attempt.needs_sign_in:
        return FORBIDDEN
    if route.access == "public" or who in STRANGERS:
        return attempt.answer
    return REFUSALS[who]


def expected_of_ticket(attempt: Attempt, who: Foreigner) -> Answer:
    """The cell of an identity that presents a ticket."""
    if isinstance(attempt.answer, Refusal) or who in STRANGERS:
        return attempt.answer
    return REFUSALS_OF_TICKETS[who]
