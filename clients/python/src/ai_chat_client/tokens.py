"""What an access token tells without being verified: whose it is, and when it expires."""

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ai_chat_client.errors import ChatError, network_error

GetToken = Callable[[bool], Awaitable[str | None]]
"""Asked for an access token whenever one is needed, so it should return a cached one while that is valid for a minute.
Its argument: the server said that the last one has expired. None: nobody is signed in."""


@dataclass(frozen=True, slots=True)
class TokenClaims:
    user_id: str | None = None
    expires_at: float | None = None
    """Seconds since 1970."""


def claims_of(token: str) -> TokenClaims:
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return TokenClaims(claims.get("sub"), claims.get("exp"))
    except (ValueError, IndexError, AttributeError):
        return TokenClaims()  # not a JWT, such as an API key


def constant(token: str) -> GetToken:
    """For an API key, or an access token that nothing renews."""

    async def get_token(expired: bool) -> str | None:
        return None if expired else token

    return get_token


async def ask(get_token: GetToken, *, expired: bool) -> str:
    """Raises ChatError: `not_signed_in`, or `network` if the app's function failed."""
    try:
        token = await get_token(expired)
    except ChatError:
        raise
    except Exception as cause:  # whatever the app's sign-in raises; it is asked again later
        raise network_error() from cause
    if not token:
        raise ChatError("not_signed_in", "Sign in to use this.")
    return token
