"""Proofs of an e-mail address by the mails of Supabase Auth, and changes of the address and the password.

No answer reveals whether an account exists, neither by its content nor by its duration.
"""

import structlog
from aiohttp import web
from pydantic import SecretStr

from server.api import schemas
from server.api.auth import SIGN_IN_ERRORS, SIGNED_IN, client_address, signed_in, signed_in_body
from server.api.models import ChangeEmail, ChangePassword, Recover, Resend, Reset, Verify
from server.http.app_keys import AUTHENTICATOR, HUB, IDENTITY, REAUTHENTICATION, SIGN_IN_LIMITS, UNIFORM_DELAY
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.ports import MailCode, MailProof, Principal, TokenPair
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)


async def verify(request: web.Request, body: Verify) -> web.Response:
    """Complete what a mail was for (confirmation, recovery, change of the address, magic link), and sign in."""
    proof = body.mail_proof
    assert proof is not None, "the model has checked it"
    tokens = await _verified(request, proof, body.captcha_token)
    if tokens is None:
        return json_response({"status": "confirmation_required", "email": body.email}, status=202)
    return await signed_in(request, tokens)


async def resend(request: web.Request, body: Resend) -> web.Response:
    """Send the mail of a registration or of a change of the address again, if it waits for one."""
    await request.app[SIGN_IN_LIMITS].mail(body.email)
    call = request.app[IDENTITY].resend(
        body.email, body.type, address=client_address(request), captcha_token=body.captcha_token
    )
    await request.app[UNIFORM_DELAY].run(call)
    return json_response({"status": "mail_requested", "email": body.email}, status=202)


async def recover(request: web.Request, body: Recover) -> web.Response:
    """Send a mail by which a new password can be set, if the account exists."""
    await request.app[SIGN_IN_LIMITS].mail(body.email)
    call = request.app[IDENTITY].recover(body.email, address=client_address(request), captcha_token=body.captcha_token)
    await request.app[UNIFORM_DELAY].run(call)
    return json_response({"status": "mail_requested", "email": body.email}, status=202)


async def reset(request: web.Request, body: Reset) -> web.Response:
    """Set a new password by the mail of `auth/recover`, and sign in; the user's other sign-ins end.

    The code is used up also if the password is refused: then the error has the new sign-in as `session`, with which
    `auth/password` accepts another one during ten minutes.
    """
    proof = body.proof("recovery")
    assert proof is not None, "the model has checked it"
    tokens = await _verified(request, proof, body.captcha_token)
    if tokens is None:
        raise PlatformError(ErrorCode.OTP_EXPIRED)
    session = await signed_in_body(request, tokens)
    try:
        principal = await request.app[AUTHENTICATOR].token(tokens.access_token.get_secret_value(), "account")
        await _set_password(request, principal, body.password)
    except PlatformError as error:
        error.members = {**error.members, "session": session}
        raise
    return json_response(session)


async def change_password(request: web.Request, principal: Principal, body: ChangePassword) -> web.Response:
    """Change the password; the user's other sign-ins end."""
    await _reauthenticate(request, principal, body)
    await _set_password(request, principal, body.password, body.current_password)
    return web.Response(status=204)


async def change_email(request: web.Request, principal: Principal, body: ChangeEmail) -> web.Response:
    """Ask for another e-mail address. It takes effect when the mail to it is confirmed, and, with the project's secure
    change, the one to the old address as well. Also 202 if the address is another user's: then no mail is sent."""
    for counted in (body.email, principal.user_id):
        await request.app[SIGN_IN_LIMITS].mail(counted)
    token = await _reauthenticate(request, principal, body)
    delay_passed = request.app[UNIFORM_DELAY].begin()
    is_changed = await request.app[IDENTITY].set_email(token, body.email)
    log.info("auth.email_change_requested", is_changed=is_changed)
    if not is_changed:
        await delay_passed()
        return json_response({"status": "confirmation_required", "email": body.email}, status=202)
    await request.app[AUTHENTICATOR].open_account(principal.user_id, body.email)
    return json_response({"status": "changed", "email": body.email})


async def _verified(request: web.Request, proof: MailProof, captcha_token: str | None) -> TokenPair | None:
    if isinstance(proof, MailCode):
        await request.app[SIGN_IN_LIMITS].code(proof.email)
    try:
        tokens = await request.app[IDENTITY].verify_otp(
            proof, address=client_address(request), captcha_token=captcha_token
        )
    except PlatformError as error:
        log.warning("auth.proof_refused", code=error.code)
        raise
    log.info("auth.proof_accepted", user_id=None if tokens is None else tokens.user_id)
    return tokens


async def _reauthenticate(request: web.Request, principal: Principal, body: ChangePassword | ChangeEmail) -> SecretStr:
    """The access token, after the user has proved who they are."""
    await request.app[REAUTHENTICATION].require(
        principal, body.current_password, address=client_address(request), captcha_token=body.captcha_token
    )
    assert principal.access_token is not None, "required by the reauthentication"
    return principal.access_token


async def _set_password(
    request: web.Request, principal: Principal, password: SecretStr, current: SecretStr | None = None
) -> None:
    """Set it and end the other sign-ins, as hosted Auth does by itself and Supabase Lite does not. If only that fails,
    the password has changed nevertheless: an error would make the user repeat it with the wrong current one."""
    assert principal.access_token is not None, "an access token is required before"
    await request.app[IDENTITY].set_password(principal.access_token, password, current)
    log.info("auth.password_changed", user_id=principal.user_id)
    try:
        await request.app[IDENTITY].sign_out(principal, "others")
    except PlatformError as error:
        log.warning("auth.sign_ins_not_ended", user_id=principal.user_id, code=error.code)
    request.app[HUB].recheck(principal.user_id)


_MAIL_ERRORS = (ErrorCode.CAPTCHA_FAILED, ErrorCode.RATE_LIMITED, ErrorCode.SUPABASE_UNAVAILABLE)
_PROOF_ERRORS = (ErrorCode.OTP_EXPIRED, ErrorCode.CAPTCHA_FAILED, *SIGN_IN_ERRORS)
_CHANGE_ERRORS = (ErrorCode.REAUTHENTICATION_REQUIRED, ErrorCode.CAPTCHA_FAILED)
_MAIL_REQUESTED = Reply("A mail is sent, if one is due.", schemas.MailRequested)

ROUTES = (
    Route(
        "POST",
        "/api/v1/auth/verify",
        "public",
        verify,
        "auth",
        "Complete what a mail was for, by its code or its link's token",
        {
            200: SIGNED_IN,
            202: Reply("The mail to the other address must be confirmed, too.", schemas.ConfirmationRequired),
        },
        errors=_PROOF_ERRORS,
        limited=True,
    ),
    Route(
        "POST",
        "/api/v1/auth/resend",
        "public",
        resend,
        "auth",
        "Send a mail again",
        {202: _MAIL_REQUESTED},
        errors=_MAIL_ERRORS,
        limited=True,
    ),
    Route(
        "POST",
        "/api/v1/auth/recover",
        "public",
        recover,
        "auth",
        "Send a mail to set a new password",
        {202: _MAIL_REQUESTED},
        errors=_MAIL_ERRORS,
        limited=True,
    ),
    Route(
        "POST",
        "/api/v1/auth/reset",
        "public",
        reset,
        "auth",
        "Set a new password by a mail's code or its link's token",
        {200: SIGNED_IN},
        errors=(*_PROOF_ERRORS, ErrorCode.WEAK_PASSWORD, ErrorCode.MFA_REQUIRED),
        limited=True,
    ),
    Route(
        "POST",
        "/api/v1/auth/password",
        "account",
        change_password,
        "auth",
        "Change the password",
        {204: Reply("Changed.")},
        errors=(*_CHANGE_ERRORS, ErrorCode.WEAK_PASSWORD),
        limited=True,
    ),
    Route(
        "POST",
        "/api/v1/auth/email",
        "account",
        change_email,
        "auth",
        "Change the e-mail address",
        {
            200: Reply("Changed at once, since the project confirms no addresses.", schemas.EmailChanged),
            202: Reply("It is changed when it is confirmed.", schemas.ConfirmationRequired),
        },
        errors=_CHANGE_ERRORS,
        limited=True,
    ),
)
