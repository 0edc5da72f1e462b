"""The client of Letta: one pool of sockets, one SDK client per member, a timeout for every call, classified errors.

Letta authorises by two headers: the server's one password, and `user_id`, the member a request acts as. A request
without that header, or with an unknown one, acts as Letta's default user on a server not configured against it.
So the only ways to Letta are `as_member`, which checks the id, and `as_admin`, for the paths that have no member.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar, cast

import httpx
import letta_client.resources.conversations  # noqa: F401 - the SDK imports it in the first call, for 0.1 s
import structlog
from letta_client import APIConnectionError, APIStatusError, AsyncLetta
from pydantic import SecretStr

from server.adapters.aiohttp_transport import AiohttpTransport, PlainClient
from server.adapters.letta.errors import RefusedError, is_service_fault, was_never_sent
from server.resilience import Breaker, Guard, ServiceError, retry_after_in

log = structlog.get_logger(__name__)
T = TypeVar("T")

_ANSWERS: Final = ("application/json", "text/event-stream")
_MEMBER_ID: Final = re.compile(r"user-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts in seconds.

    `idle`: a stream counts as broken when nothing, not even a ping, arrived for this long, or up to a quarter longer.
    Letta pings every 10 s in our stack, every 20 s by default. `recheck`: the pause before asking again for an object
    that Letta did not find.
    """

    connect: float = 4.0
    call: float = 15.0
    idle: float = 45.0
    recheck: float = 1.0


DEFAULT_TIMEOUTS: Final = Timeouts()


class LettaClient:
    """Owns the sockets: close it with `aclose`."""

    def __init__(
        self,
        base_url: str,
        password: SecretStr,
        breaker: Breaker,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        *,
        attempts: int = 3,
    ) -> None:
        self.breaker = breaker
        self.timeouts = timeouts
        self._guard = Guard(breaker, attempts=attempts)
        self._root = AsyncLetta(
            base_url=base_url,
            api_key=password.get_secret_value(),  # never None: the SDK would read the environment instead
            max_retries=0,  # the SDK's retries would send a message twice
            timeout=httpx.Timeout(timeouts.call, connect=timeouts.connect),
            http_client=PlainClient(AiohttpTransport(), event_hooks={"response": [_refuse_pages]}),
        )

    async def aclose(self) -> None:
        await self._root.close()

    def as_member(self, member_id: str) -> AsyncLetta:
        """The SDK acting as this member. Raises ValueError for what is not a member's id."""
        if not _MEMBER_ID.fullmatch(member_id):
            raise ValueError("not the id of a Letta member")
        return self._root.with_options(default_headers={"user_id": member_id})

    def as_admin(self) -> AsyncLetta:
        """The SDK without a member: only for organizations, members and health."""
        return self._root

    async def once(self, call: Callable[[], Awaitable[T]], *, deadline: float | None = None) -> T:
        """One call. `deadline` in seconds, if it may take longer than others. Raises RefusedError, or
        PlatformError(letta_unavailable)."""
        return await self._guard.once(lambda: classified(call), deadline=deadline or self.timeouts.call)

    async def repeatable(self, call: Callable[[], Awaitable[T]], *, deadline: float | None = None) -> T:
        """An idempotent call, retried while Letta is at fault. `deadline` and errors as of `once`."""
        return await self._guard.repeatable(lambda: classified(call), deadline=deadline or self.timeouts.call)

    async def read(self, member: AsyncLetta, path: str, parse: Callable[[Any], T], **query: str | int) -> T:
        """GET `path` as JSON, for paths without an SDK method or with an unsuitable model. If `parse` raises, the
        answer counts as a fault of Letta."""

        async def ask() -> T:
            return parse(await get_json(member, path, query))

        return await self.repeatable(ask)

    async def read_dated(
        self, member: AsyncLetta, path: str, parse: Callable[[Any], T], **query: str | int
    ) -> tuple[T, datetime]:
        """As `read`, together with the time by Letta's clock, which may differ from ours."""
        options: Any = {"params": query}

        async def ask() -> tuple[T, datetime]:
            response: httpx.Response = await member.get(path, cast_to=httpx.Response, options=options)
            date = response.headers.get("date")
            return parse(response.json()), parsedate_to_datetime(date) if date else datetime.now(UTC)

        return await self.repeatable(ask)


def row(*fields: str) -> Callable[[Any], dict[str, Any]]:
    """Parses an object that has these fields."""

    def parse(answer: Any) -> dict[str, Any]:
        if not isinstance(answer, dict):
            raise TypeError("not an object")
        for field in fields:
            answer[field]
        return answer

    return parse


def rows(*fields: str) -> Callable[[Any], list[dict[str, Any]]]:
    """Parses a list of objects that have these fields."""
    parse_row = row(*fields)

    def parse(answer: Any) -> list[dict[str, Any]]:
        if not isinstance(answer, list):
            raise TypeError("not a list")
        return [parse_row(one) for one in answer]

    return parse


async def _refuse_pages(response: httpx.Response) -> None:
    """Raise httpx.RemoteProtocolError for a success that is neither JSON nor a stream of events: a page of a gateway in
    between, which the SDK would return as text."""
    kind = response.headers.get("Content-Type", "")
    if response.is_success and response.status_code != httpx.codes.NO_CONTENT and not kind.startswith(_ANSWERS):
        raise httpx.RemoteProtocolError(f"an answer of the type {kind[:50]!r}", request=response.request)


async def get_json(client: AsyncLetta, path: str, query: Mapping[str, str | int] | None = None) -> Any:
    """One GET, without a deadline. Raises the SDK's errors."""
    return await client.get(path, cast_to=cast("type[Any]", object), options={"params": dict(query or {})})


async def post_json(client: AsyncLetta, path: str, body: Mapping[str, object] | None = None) -> Any:
    """One POST, without a deadline. Raises the SDK's errors."""
    return await client.post(path, cast_to=cast("type[Any]", object), body=body)


async def patch_json(client: AsyncLetta, path: str, body: Mapping[str, object]) -> Any:
    """One PATCH, without a deadline. Raises the SDK's errors."""
    return await client.patch(path, cast_to=cast("type[Any]", object), body=body)


async def delete_json(
    client: AsyncLetta, path: str, query: Mapping[str, str] | None = None, *, timeout: float = DEFAULT_TIMEOUTS.call
) -> Any:
    """One DELETE, which may take `timeout` seconds. Raises the SDK's errors."""
    options: Any = {"params": dict(query or {}), "timeout": httpx.Timeout(timeout, connect=DEFAULT_TIMEOUTS.connect)}
    return await client.delete(path, cast_to=cast("type[Any]", object), options=options)


async def classified(call: Callable[[], Awaitable[T]]) -> T:
    """Convert the SDK's errors. Raises ServiceError if Letta is at fault, RefusedError if the request is.

    An answer that `call` cannot parse is a fault of Letta, or of a gateway in between."""
    try:
        return await call()
    except APIConnectionError as error:
        sent = "the connection could not be opened" if was_never_sent(error) else "the connection broke"
        raise ServiceError(f"Letta did not answer: {sent}") from error
    except APIStatusError as error:
        if error.status_code in (401, 403):
            log.error("letta.password_refused", status=error.status_code)  # noqa: TRY400 - no traceback needed
        if is_service_fault(error):
            retry_after = retry_after_in(error.response.headers)
            raise ServiceError(
                f"Letta answered {error.status_code}", retry_after=retry_after, answered=error.status_code == 500
            ) from error
        log.info("letta.refused", status=error.status_code, method=error.request.method, path=error.request.url.path)
        raise RefusedError(error) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        log.warning("letta.answer_unreadable", reason=type(error).__name__)
        raise ServiceError("Letta answered with something that cannot be read") from error
