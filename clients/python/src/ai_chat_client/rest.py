"""Requests to the REST API with the user's token."""

from collections.abc import Mapping
from typing import Any

import httpx

from ai_chat_client.errors import ChatError, chat_error, network_error
from ai_chat_client.tokens import GetToken, ask

TIMEOUT = httpx.Timeout(60, connect=10)
"""Seconds. The server answers `Prefer: respond-async` at once."""


class Rest:
    def __init__(self, url: str, get_token: GetToken) -> None:
        self.api = api_of(url)
        self.http = httpx.AsyncClient(timeout=TIMEOUT)
        self._get_token = get_token

    async def json(
        self,
        path: str,
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON of a successful answer; None if it has none. An expired token is renewed once. Raises ChatError."""
        answer = None
        for expired in (False, True):
            try:
                token = await ask(self._get_token, expired=expired)
            except ChatError as error:
                if answer is None or error.code != "not_signed_in":
                    raise
                break  # nothing renews the token: the server has said what is wrong with it
            try:
                answer = await self.http.request(
                    method,
                    f"{self.api}/{path}",
                    json=body,
                    params=params,
                    headers={**(headers or {}), "Authorization": f"Bearer {token}"},
                )
            except httpx.HTTPError as cause:
                raise network_error() from cause
            if answer.status_code != 401:
                break
        assert answer is not None
        if not answer.is_success:
            raise error_of(answer)
        return json_of(answer) if answer.content else None

    async def close(self) -> None:
        await self.http.aclose()


def api_of(url: str) -> str:
    """The address up to and including `/api/v1`. Raises ValueError."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"The server's address must begin with https:// or http://: {url}")
    return f"{url.rstrip('/')}/api/v1"


def json_of(answer: httpx.Response) -> Any:
    """The JSON of a successful answer. Raises ChatError."""
    try:
        return answer.json()
    except ValueError:
        raise network_error() from None  # the page of a proxy or of a network's sign-in


def error_of(answer: httpx.Response) -> ChatError:
    """The error of an answer that was read. One without a problem comes from a proxy, and counts as `network` if it may
    pass."""
    try:
        return chat_error(answer.json())
    except (ValueError, LookupError, AttributeError, TypeError):
        passes = answer.status_code >= 500 or answer.status_code == 429
        sentence = f"The server answered {answer.status_code}."
        return ChatError("network" if passes else "invalid_request", sentence, retryable=passes)
