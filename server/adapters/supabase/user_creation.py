"""UserCreation on Supabase Auth: by its admin API, and where there is none (Supabase Lite) by an ordinary sign-up."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from pydantic import SecretStr
from supabase_auth.errors import AuthError

from server.adapters.supabase.auth_calls import AddressExistsError, auth_call, refuse_nul
from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.outcomes import granted
from server.protocol.codes import ErrorCode
from server.protocol.errors import FieldError, PlatformError

_NO_ADMIN_API: Final = frozenset({404, 405})
_NO_BEARER: Final = "no_authorization"
"""Auth's answer without a bearer token. Hosted projects put one in place of a secret key; Lite does not."""
T = TypeVar("T")


class SupabaseUserCreation:
    """Implements `server.ports.UserCreation`."""

    def __init__(self, client: SupabaseClient) -> None:
        self._client = client

    async def create_user(self, email: str, password: SecretStr, name: str | None) -> str:
        refuse_nul(email, password.get_secret_value(), name or "")
        secret, metadata = password.get_secret_value(), {} if name is None else {"name": name}
        try:
            created = await self._call(lambda: self._by_admin_api(email, secret, metadata))
            if created is None:
                created = await self._call(lambda: self._by_sign_up(email, secret, metadata))
        except AddressExistsError as cause:
            raise _exists() from cause
        return created

    async def _by_admin_api(self, email: str, password: str, metadata: dict[str, str]) -> str | None:
        """The new user's id; None if the project has no admin API."""
        try:
            answer = await self._client.administrator().create_user(
                {"email": email, "password": password, "email_confirm": True, "user_metadata": metadata}
            )
        except AuthError as failure:
            response = getattr(failure.__cause__, "response", None)  # the SDK's own status is of JSON answers only
            if failure.code == _NO_BEARER or (response is not None and response.status_code in _NO_ADMIN_API):
                return None
            raise
        return answer.user.id

    async def _by_sign_up(self, email: str, password: str, metadata: dict[str, str]) -> str:
        credentials: Any = {"email": email, "password": password, "options": {"data": metadata}}
        answer = await self._client.visitor().sign_up(credentials)
        if answer.user is None:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)
        confirmed = await self._client.call("confirm_user", user_id=answer.user.id)
        if confirmed["outcome"] == "not_found":  # Auth answers an existing address with an invented id
            raise _exists()
        granted(confirmed, answer.user.id)
        return answer.user.id

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        return await auth_call(self._client, call)


def _exists() -> PlatformError:
    taken = FieldError("/email", "is registered already")
    return PlatformError(ErrorCode.INVALID_REQUEST, "This e-mail address is registered already.", errors=(taken,))
