"""Sign-up and sign-in through Supabase Auth. Optional: any access token of the project authenticates a request."""

from typing import Final

import structlog
from aiohttp import web

from server.api import schemas
from server.api.models import Login, Logout, Refresh, Register
from server.http.app_keys import AUTHENTICATOR, CLIENT_ADDRESSES, HUB, IDENTITY, READS, SIGN_IN_LIMITS, UNIFORM_DELAY
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.ip_addresses import parse_address
from server.ports import Principal, SignInDevice, TokenPair
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Json, wire_time

log = structlog.get_logger(__name__)

LONGEST_USER_AGENT: Final = 512
"""Characters."""


async def register(request: web.Request, body: Register) -> web.Response:
    """Create the user. The agent is provisioned in the background."""
    await request.app[SIGN_IN_LIMITS].sign_up(body.email)
    authenticator = request.app[AUTHENTICATOR]
    authenticator.gate.admit(body.email)
    delay_passed = request.app[UNIFORM_DELAY].begin()
    async with authenticator.opening_account():
        tokens = await request.app[IDENTITY].sign_up(
            body.email,
            body.password,
            body.name,
            address=client_address(request),
            captcha_token=body.captcha_token,
        )
    if tokens is None:
        await delay_passed()
        log.info("auth.confirmation_required")
        return json_response({"status": "confirmation_required", "email": body.email}, status=202)
    log.info("auth.registered", user_id=tokens.user_id)
    return await signed_in(request, tokens, status=201, name=body.name)


async def login(request: web.Request, body: Login) -> web.Response:
    """Sign in. Unfinished provisioning continues in the background."""
    address, delay_passed = client_address(request), request.app[UNIFORM_DELAY].begin()
    try:
        async with request.app[SIGN_IN_LIMITS].sign_in(body.email, address or "unknown"):
            tokens = await request.app[IDENTITY].sign_in(
                body.email, body.password, address=address, captcha_token=body.captcha_token
            )
    except PlatformError as error:
        log.warning("auth.sign_in_failed", code=error.code)
        if error.code is ErrorCode.UNAUTHORIZED:
            await delay_passed()
        raise
    log.info("auth.signed_in", user_id=tokens.user_id)
    return await signed_in(request, tokens)


async def refresh(request: web.Request, body: Refresh) -> web.Response:
    """Exchange a refresh token for a new pair of tokens. It can be used once."""
    tokens = await request.app[IDENTITY].refresh(body.refresh_token, address=client_address(request))
    return await signed_in(request, tokens)


async def me(request: web.Request, principal: Principal) -> web.Response:
    profile = await request.app[READS].profile(principal)
    if profile is None:
        raise PlatformError(ErrorCode.NOT_FOUND, "This account no longer exists.")
    return json_response(profile.user.wire())


async def logout(request: web.Request, principal: Principal, body: Logout) -> web.Response:
    """Sign out this device, the user's other ones, or all. Their tokens are refused at once, and their sockets and
    streams end. API keys stay valid."""
    await request.app[IDENTITY].sign_out(principal, body.scope)
    request.app[HUB].recheck(principal.user_id)
    log.info("auth.signed_out", scope=body.scope)
    return web.Response(status=204)


async def signed_in(
    request: web.Request, tokens: TokenPair, *, status: int = 200, name: str | None = None
) -> web.Response:
    """The response to a sign-in; the account is opened if it is new."""
    return json_response(await signed_in_body(request, tokens, name=name, is_counted=status == 201), status=status)


async def signed_in_body(
    request: web.Request, tokens: TokenPair, *, name: str | None = None, is_counted: bool = False
) -> Json:
    """The body of that response. `is_counted`: see `Authenticator.open_account`."""
    account = await request.app[AUTHENTICATOR].open_account(
        tokens.user_id, tokens.email, name, is_anonymous=tokens.is_anonymous, is_counted=is_counted
    )
    device = SignInDevice(tokens.session_id, user_agent(request), client_address(request))
    await request.app[SIGN_IN_LIMITS].signed_in(tokens.user_id, tokens.email, device)
    return {
        "access_token": tokens.access_token.get_secret_value(),
        "token_type": "bearer",
        "expires_in": tokens.expires_in,
        "expires_at": wire_time(tokens.expires_at),
        "refresh_token": tokens.refresh_token.get_secret_value(),
        "user": account.user.wire(),
    }


def client_address(request: web.Request) -> str | None:
    """The client's IP address; None if it is unknown."""
    return parse_address(request.app[CLIENT_ADDRESSES].of(request))


def user_agent(request: web.Request) -> str | None:
    """What the client calls itself, without control characters and what is not UTF-8; None if it does not."""
    named = "".join(filter(str.isprintable, request.headers.get("User-Agent", "")))
    return named[:LONGEST_USER_AGENT].strip() or None


SIGNED_IN = Reply("Signed in.", schemas.SignedIn)
SIGN_IN_ERRORS = (
    ErrorCode.UNAUTHORIZED,
    ErrorCode.ACCOUNT_BLOCKED,
    ErrorCode.REGISTRATION_CLOSED,
    ErrorCode.ANONYMOUS_NOT_ALLOWED,
    ErrorCode.RATE_LIMITED,
    ErrorCode.SUPABASE_UNAVAILABLE,
)

ROUTES = (
    Route(
        "POST",
        "/api/v1/auth/register",
        "public",
        register,
        "auth",
        "Register a user",
        {
            201: Reply("Registered and signed in.", schemas.SignedIn),
            202: Reply("The e-mail address must be confirmed first, or exists already.", schemas.ConfirmationRequired),
        },
        errors=(
            ErrorCode.REGISTRATION_CLOSED,
            ErrorCode.WEAK_PASSWORD,
            ErrorCode.CAPTCHA_FAILED,
            ErrorCode.RATE_LIMITED,
            ErrorCode.SUPABASE_UNAVAILABLE,
        ),
        limited=True,
    ),
    Route(
        "POST",
        "/api/v1/auth/login",
        "public",
        login,
        "auth",
        "Sign in",
        {200: SIGNED_IN},
        errors=(*SIGN_IN_ERRORS, ErrorCode.CAPTCHA_FAILED),
        limited=True,
    ),
    Route(
        "POST",
        "/api/v1/auth/refresh",
        "public",
        refresh,
        "auth",
        "Exchange a refresh token for a new pair of tokens",
        {200: SIGNED_IN},
        errors=SIGN_IN_ERRORS,
        limited=True,
    ),
    Route("GET", "/api/v1/auth/me", "read", me, "auth", "The signed-in user", {200: Reply("The user.", schemas.User)}),
    Route("POST", "/api/v1/auth/logout", "account", logout, "auth", "Sign out", {204: Reply("Signed out.")}),
)
