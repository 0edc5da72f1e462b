"""Every error code and close code of the protocol, each in one typed table that also generates `docs/errors.md`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ErrorCode(StrEnum):
    """Why a request, a frame or a turn was refused or failed."""

    INVALID_REQUEST = "invalid_request"
    INVALID_CURSOR = "invalid_cursor"
    CAPTCHA_FAILED = "captcha_failed"
    UNAUTHORIZED = "unauthorized"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a code, not a secret
    BUDGET_EXCEEDED = "budget_exceeded"
    ACCOUNT_BLOCKED = "account_blocked"
    FORBIDDEN = "forbidden"
    MFA_REQUIRED = "mfa_required"
    REAUTHENTICATION_REQUIRED = "reauthentication_required"
    OTP_EXPIRED = "otp_expired"
    REGISTRATION_CLOSED = "registration_closed"
    ANONYMOUS_NOT_ALLOWED = "anonymous_not_allowed"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BUSY = "busy"
    ID_CONFLICT = "id_conflict"
    NOT_RETRYABLE = "not_retryable"
    LAST_ADMIN = "last_admin"
    TOO_MANY_KEYS = "too_many_keys"
    TOO_LARGE = "too_large"
    CONTENT_REFUSED = "content_refused"
    WEAK_PASSWORD = "weak_password"  # noqa: S105
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    INTERNAL_ERROR = "internal_error"
    MODEL_ERROR = "model_error"
    LETTA_UNAVAILABLE = "letta_unavailable"
    LITELLM_UNAVAILABLE = "litellm_unavailable"
    SUPABASE_UNAVAILABLE = "supabase_unavailable"
    AGENT_UNAVAILABLE = "agent_unavailable"
    KEY_REFUSED = "key_refused"
    EVENTS_UNAVAILABLE = "events_unavailable"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    TURN_TIMEOUT = "turn_timeout"


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """What a code means: its HTTP status, whether the same request may succeed later, the default sentence, and the
    seconds after which to repeat the request if nothing better is known."""

    status: int
    retryable: bool
    title: str
    sentence: str
    retry_after: float | None = None


_SERVICE_SECONDS: Final = 5.0
"""A breaker that is open tries its service again within this time."""

ERRORS: Final[dict[ErrorCode, ErrorRule]] = {
    ErrorCode.INVALID_REQUEST: ErrorRule(400, False, "Invalid request", "The request is not valid."),
    ErrorCode.INVALID_CURSOR: ErrorRule(400, False, "Invalid cursor", "This cursor was not issued by this server."),
    ErrorCode.CAPTCHA_FAILED: ErrorRule(400, False, "Captcha failed", "Solve the captcha again."),
    ErrorCode.UNAUTHORIZED: ErrorRule(401, False, "Unauthorized", "Sign in to use this."),
    ErrorCode.TOKEN_EXPIRED: ErrorRule(
        401, False, "Token expired", "The access token has expired. Refresh it and try again."
    ),
    ErrorCode.BUDGET_EXCEEDED: ErrorRule(402, True, "Budget exceeded", "The budget of this period is used up."),
    ErrorCode.ACCOUNT_BLOCKED: ErrorRule(403, False, "Account blocked", "This account is blocked."),
    ErrorCode.FORBIDDEN: ErrorRule(403, False, "Forbidden", "You may not do this."),
    ErrorCode.MFA_REQUIRED: ErrorRule(
        403, False, "Second factor required", "Sign in with your second factor to use this (assurance level aal2)."
    ),
    ErrorCode.REAUTHENTICATION_REQUIRED: ErrorRule(
        403, False, "Reauthentication required", "Send your current password, or sign in again, and repeat this."
    ),
    ErrorCode.OTP_EXPIRED: ErrorRule(
        403,
        False,
        "Code or link expired",
        "This code or link is wrong, was used before or is too old. Ask for a new one.",
    ),
    ErrorCode.REGISTRATION_CLOSED: ErrorRule(403, False, "Registration closed", "Registration is closed."),
    ErrorCode.ANONYMOUS_NOT_ALLOWED: ErrorRule(
        403, False, "Anonymous not allowed", "This service needs a signed-in user with an e-mail address."
    ),
    ErrorCode.ORIGIN_NOT_ALLOWED: ErrorRule(
        403, False, "Origin not allowed", "Pages of this origin may not connect here."
    ),
    ErrorCode.NOT_FOUND: ErrorRule(404, False, "Not found", "There is nothing here."),
    ErrorCode.METHOD_NOT_ALLOWED: ErrorRule(405, False, "Method not allowed", "This path does not take that method."),
    ErrorCode.BUSY: ErrorRule(409, True, "Busy", "A turn is running. Wait for its end or cancel it."),
    ErrorCode.ID_CONFLICT: ErrorRule(
        409, False, "Id conflict", "This client_message_id was already used with other content."
    ),
    ErrorCode.NOT_RETRYABLE: ErrorRule(
        409, False, "Not retryable", "Only a failed, cancelled or unsent turn can be retried."
    ),
    ErrorCode.LAST_ADMIN: ErrorRule(409, False, "Last admin", "This is the only admin. Make somebody else one first."),
    ErrorCode.TOO_MANY_KEYS: ErrorRule(409, False, "Too many keys", "Revoke one of your API keys first."),
    ErrorCode.TOO_LARGE: ErrorRule(413, False, "Too large", "This is larger than the limit."),
    ErrorCode.CONTENT_REFUSED: ErrorRule(
        422, False, "Content refused", "The language model's content policy does not allow an answer to this message."
    ),
    ErrorCode.WEAK_PASSWORD: ErrorRule(422, False, "Weak password", "Choose a stronger password."),
    ErrorCode.RATE_LIMITED: ErrorRule(429, True, "Rate limited", "Too many requests. Try again shortly."),
    ErrorCode.QUEUE_FULL: ErrorRule(429, True, "Queue full", "Too many messages are waiting already."),
    ErrorCode.INTERNAL_ERROR: ErrorRule(500, True, "Internal error", "Something went wrong on the server."),
    ErrorCode.MODEL_ERROR: ErrorRule(502, True, "Model error", "The language model failed to answer."),
    ErrorCode.LETTA_UNAVAILABLE: ErrorRule(
        503, True, "Letta unavailable", "The agent service is not reachable right now.", _SERVICE_SECONDS
    ),
    ErrorCode.LITELLM_UNAVAILABLE: ErrorRule(
        503, True, "LiteLLM unavailable", "The model gateway is not reachable right now.", _SERVICE_SECONDS
    ),
    ErrorCode.SUPABASE_UNAVAILABLE: ErrorRule(
        503, True, "Supabase unavailable", "The database is not reachable right now.", _SERVICE_SECONDS
    ),
    ErrorCode.AGENT_UNAVAILABLE: ErrorRule(
        503, True, "Agent unavailable", "Your agent is not ready yet. Try again shortly."
    ),
    ErrorCode.KEY_REFUSED: ErrorRule(
        503, False, "Key refused", "The model gateway does not accept your account's key. Please contact support."
    ),
    ErrorCode.EVENTS_UNAVAILABLE: ErrorRule(
        503, True, "Events unavailable", "This conversation is open on another server that cannot be reached right now."
    ),
    ErrorCode.OVERLOADED: ErrorRule(503, True, "Overloaded", "Too many turns are waiting. Try again shortly."),
    ErrorCode.DRAINING: ErrorRule(503, True, "Draining", "This server is shutting down. Reconnect."),
    ErrorCode.TURN_TIMEOUT: ErrorRule(504, True, "Turn timeout", "The reply took longer than the limit."),
}


@dataclass(frozen=True, slots=True)
class CloseCode:
    """Why the server closes a WebSocket: the code of the close frame, its reason text, and whether to reconnect."""

    code: int
    reason: str
    reconnect: bool
    meaning: str


GOING_AWAY: Final = CloseCode(1001, "draining", True, "The server goes away.")
SERVICE_RESTART: Final = CloseCode(1012, "draining", True, "The server restarts; another instance takes over.")
TRY_AGAIN_LATER: Final = CloseCode(
    1013, "unavailable", True, "A service behind the server cannot be reached right now."
)
SLOW_CONSUMER: Final = CloseCode(4000, "slow_consumer", True, "The connection fell too far behind.")
TOKEN_EXPIRED: Final = CloseCode(4001, "token_expired", True, "The access token expired; reconnect with a fresh one.")
MOVED: Final = CloseCode(4002, "moved", True, "The session moved to another instance.")
NO_PONG: Final = CloseCode(4003, "no_pong", True, "The client did not answer a ping in time.")
TOO_MANY_CONNECTIONS: Final = CloseCode(
    4004, "too_many_connections", True, "The user has too many connections open; come back in some seconds."
)
UNAUTHORIZED: Final = CloseCode(4500, "unauthorized", False, "No valid token or ticket was presented in time.")
PROTOCOL_ERROR: Final = CloseCode(4501, "protocol_error", False, "The client broke the protocol.")
SIGNED_OUT: Final = CloseCode(
    4502, "signed_out", False, "The sign-in or the API key with which the connection was opened has ended."
)
ACCOUNT_CLOSED: Final = CloseCode(4503, "account_closed", False, "The account was blocked or deleted.")

CLOSE_CODES: Final[tuple[CloseCode, ...]] = (
    GOING_AWAY,
    SERVICE_RESTART,
    TRY_AGAIN_LATER,
    SLOW_CONSUMER,
    TOKEN_EXPIRED,
    MOVED,
    NO_PONG,
    TOO_MANY_CONNECTIONS,
    UNAUTHORIZED,
    PROTOCOL_ERROR,
    SIGNED_OUT,
    ACCOUNT_CLOSED,
)
