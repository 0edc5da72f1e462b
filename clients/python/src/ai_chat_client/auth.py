"""Sign-in with the server's own accounts, for apps that do not use Supabase themselves. A refresh token can be used
only once, so at most one refresh runs at a time, also of several programs that share a storage and its lock."""

import asyncio
import json
import platform
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from ai_chat_client.errors import ChatError, network_error
from ai_chat_client.rest import TIMEOUT, api_of, error_of, json_of
from ai_chat_client.wire import SignedIn, User

KEY = "chat.session"
MARGIN = timedelta(seconds=90)
"""Before the expiry."""


class Auth:
    """`storage`: where the tokens stay; by default in memory. `app`: its name in the user's list of devices.
    `lock`: one for all programs that use this storage at the same time. `get_token` is for `Chat`."""

    def __init__(
        self,
        url: str,
        storage: MutableMapping[str, str] | None = None,
        *,
        app: str = "ai-chat-client-python",
        lock: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        self._api = f"{api_of(url)}/auth"
        self._user_agent = f"{app} ({platform.system().replace('Darwin', 'macOS')})"
        self._storage: MutableMapping[str, str] = {} if storage is None else storage
        self._lock = lock
        self._refreshing: asyncio.Task[str | None] | None = None

    @property
    def user(self) -> User | None:
        """The signed-in user."""
        session = self._session()
        return session["user"] if session else None

    async def sign_in(self, email: str, password: str) -> User:
        """Raises ChatError."""
        return self._keep(json_of(await self._post("login", {"email": email, "password": password})))

    async def register(self, email: str, password: str, name: str | None = None) -> User | None:
        """None if the address must be confirmed first, by the link in an e-mail. Raises ChatError."""
        named = {"name": name} if name else {}
        answer = await self._post("register", {"email": email, "password": password, **named})
        return None if answer.status_code == 202 else self._keep(json_of(answer))

    async def confirm(self, email: str, code: str) -> User:
        """Confirm the address of a new account with the code of the e-mail, and sign in. Raises ChatError."""
        return self._keep(json_of(await self._post("verify", {"email": email, "token": code, "type": "signup"})))

    async def sign_out(self) -> None:
        """Forget the tokens here, and end this session at the server."""
        session = self._session()
        self._storage.pop(KEY, None)
        if session:
            with suppress(ChatError):  # it ends by itself within the hour
                await self._post("logout", {}, session["access_token"])

    async def get_token(self, expired: bool = False) -> str | None:
        """None: nobody is signed in, or the session has ended. Raises ChatError while the server cannot be reached."""
        session = self._session()
        if session is None:
            return None
        if not expired and _is_fresh(session):
            return session["access_token"]
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh(session))
        return await asyncio.shield(self._refreshing)  # a caller that is cancelled must not lose the new tokens

    async def _refresh(self, session: SignedIn) -> str | None:
        async with self._lock():
            if self._is_current(session):  # else another program has done it
                await self._replace(session)
        current = self._session()
        return current["access_token"] if current else None

    async def _replace(self, session: SignedIn) -> None:
        try:
            renewed = json_of(await self._post("refresh", {"refresh_token": session["refresh_token"]}))
        except ChatError as error:
            if error.retryable:
                raise
            if self._is_current(session):
                self._storage.pop(KEY, None)
        else:
            if self._is_current(session):
                self._keep(renewed)

    def _is_current(self, session: SignedIn) -> bool:
        """Whether nobody signed out, or in, meanwhile."""
        current = self._session()
        return current is not None and current["refresh_token"] == session["refresh_token"]

    def _session(self) -> SignedIn | None:
        try:
            saved: SignedIn | None = json.loads(self._storage.get(KEY, "null"))
        except ValueError:  # a crash of the machine left half of it
            return None
        return saved

    def _keep(self, session: SignedIn) -> User:
        expires_at = datetime.now(UTC) + timedelta(seconds=session["expires_in"])  # by this clock, which may be wrong
        self._storage[KEY] = json.dumps({**session, "expires_at": expires_at.isoformat()})
        return session["user"]

    async def _post(self, path: str, body: Mapping[str, Any], token: str | None = None) -> httpx.Response:
        headers = {"User-Agent": self._user_agent} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT) as http:
                answer = await http.post(f"{self._api}/{path}", json=body, headers=headers)
        except httpx.HTTPError:
            raise network_error() from None
        if not answer.is_success:
            raise error_of(answer)
        return answer


def _is_fresh(session: SignedIn) -> bool:
    return datetime.fromisoformat(session["expires_at"]) - datetime.now(UTC) > MARGIN
