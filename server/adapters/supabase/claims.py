"""Validates the claims of an access token: whether it is a user's, and whether it is valid now. Pure.

Anybody can send a token, and a project's hooks may put unusual values into signed ones. So each claim's type and size
are checked, and a wrong one makes the token invalid.
"""

import math
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import jwt
from jwt.types import Options
from pydantic import SecretStr

from server.ports import Principal, SignInMethod

AUDIENCE: Final = "authenticated"
LEEWAY_SECONDS: Final = 5
EARLY_SECONDS: Final = 30
"""How far `iat` and `nbf` may be in the future: the tolerance of PostgREST, which checks the token at each read."""
LEVELS: Final = ("aal1", "aal2", "aal3")
"""Auth's assurance levels (supabase.com/docs/guides/auth/auth-mfa). A token without one is of the lowest."""
LAST_MOMENT: Final = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
REQUIRED: Final[Options] = {
    "require": ["exp", "sub", "aud", "iss"],
    "verify_aud": True,
    "verify_exp": True,
    "verify_iat": False,
    "verify_nbf": False,
}
"""`iat` and `nbf` are compared with Supabase's clock, not with ours: a slow one of ours would refuse fresh tokens."""


def key_id_of(token: str) -> str:
    """The key id in the token's header. Raises jwt.PyJWTError."""
    try:
        return str(jwt.get_unverified_header(token).get("kid", ""))
    except jwt.PyJWTError:
        raise
    except Exception as cause:  # a header nested ten thousand deep, for instance
        raise jwt.DecodeError("the header cannot be read") from cause


def claims_of(token: str, key: Any = None, algorithm: str | None = None) -> dict[str, Any]:
    """The claims that `key` has signed; without an algorithm, the unverified ones. Raises jwt.PyJWTError."""
    try:
        if algorithm is None:
            options: Options = {"verify_signature": False, **REQUIRED}
            return jwt.decode(token, audience=AUDIENCE, leeway=LEEWAY_SECONDS, options=options)
        return jwt.decode(
            token, key, algorithms=[algorithm], audience=AUDIENCE, leeway=LEEWAY_SECONDS, options=REQUIRED
        )
    except jwt.PyJWTError:
        raise
    except Exception as cause:
        raise jwt.DecodeError("the claims cannot be read") from cause


def principal_of(token: str, claims: dict[str, Any]) -> Principal:
    """The token's user. Service keys and anonymous keys are also signed by the project, but have no user.

    Raises jwt.InvalidTokenError.
    """
    expires_at = _moment(claims, "exp")
    if claims.get("role") != "authenticated" or expires_at is None:
        raise jwt.InvalidTokenError("not a user's token")
    return Principal(
        user_id=_user_id(claims.get("sub")),
        email=_address(claims.get("email")),
        access_token=SecretStr(token),
        expires_at=datetime.fromtimestamp(expires_at, UTC),
        session_id=_session_id(claims.get("session_id")),
        amr=_methods(claims.get("amr")),
        aal=claims["aal"] if claims.get("aal") in LEVELS else LEVELS[0],
        is_anonymous=claims.get("is_anonymous") is True,
    )


def session_id_of(token: str) -> str | None:
    """The sign-in of a token that Auth has just issued, so nothing of it is checked; None if it names none."""
    try:
        return _session_id(jwt.decode(token, options={"verify_signature": False}).get("session_id"))
    except Exception:  # a token that cannot be read, as in `claims_of`
        return None


def seconds_early(claims: dict[str, Any], now: float) -> float:
    """Seconds until PostgREST accepts the token; 0 if it does already. Raises jwt.InvalidTokenError."""
    begins = max(_moment(claims, "iat") or 0.0, _moment(claims, "nbf") or 0.0)
    return max(0.0, begins - EARLY_SECONDS - now)


def _moment(claims: dict[str, Any], name: str) -> float | None:
    """A claim in seconds since 1970. PostgREST accepts numbers only."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value <= LAST_MOMENT):
        raise jwt.InvalidTokenError(f"{name} is not a time")
    return math.floor(value)


def _user_id(sub: Any) -> str:
    """The user's id in the form that PostgreSQL writes, since ids are compared as text."""
    try:
        user_id = str(UUID(sub))
    except (ValueError, TypeError, AttributeError) as cause:
        raise jwt.InvalidTokenError("not a user's token") from cause
    if sub.lower() != user_id:
        raise jwt.InvalidTokenError("not a user's token")
    return user_id


def _address(email: Any) -> str:
    """The user's e-mail address; "" if there is none, or one that cannot be stored."""
    if not isinstance(email, str) or "\0" in email:
        return ""
    try:
        email.encode()
    except UnicodeEncodeError:
        return ""
    return email


def _session_id(value: Any) -> str | None:
    """The id of the sign-in; None if the token has none, such as those of other issuers."""
    try:
        return str(UUID(value))
    except (ValueError, TypeError, AttributeError):
        return None


def _methods(amr: Any) -> tuple[SignInMethod, ...]:
    """The ways of signing in, the latest first. Auth writes `{"method": …, "timestamp": seconds}`; an entry without a
    time, which hooks may write, proves nothing about when, and is ignored."""
    found: list[SignInMethod] = []
    for entry in amr if isinstance(amr, list) else []:
        method, at = (entry.get("method"), entry.get("timestamp")) if isinstance(entry, dict) else (None, None)
        if not isinstance(method, str) or isinstance(at, bool) or not isinstance(at, int | float):
            continue
        if 0 <= at <= LAST_MOMENT:
            found.append(SignInMethod(method, datetime.fromtimestamp(at, UTC)))
    return tuple(sorted(found, key=lambda one: one.at, reverse=True))
