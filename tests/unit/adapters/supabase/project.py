"""A scripted Supabase project on the loopback interface, which records its requests."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from inspect import isawaitable
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from server.adapters.supabase.client import SupabaseClient
from server.protocol.codes import ErrorCode
from server.resilience import Backoff, Breaker, Guard

ANON, SERVICE = "sb_publishable_tests", "sb_secret_tests"


@dataclass
class Project:
    """Path → (status, body); a callable body is asked, and awaited, each time; it may send its response
    itself. Anything else is 404.

    Its clock is `ahead` of ours."""

    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    seen: list[web.BaseRequest] = field(default_factory=list)
    server: TestServer | None = None
    ahead: timedelta = timedelta(0)

    async def open(self) -> None:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            await request.read()
            self.seen.append(request)
            status, body = self.answers.get(request.path, (404, {"message": "nothing here"}))
            body = body(request) if callable(body) else body
            body = await body if isawaitable(body) else body
            if isinstance(body, web.StreamResponse):
                return body
            headers = {"Date": format_datetime(datetime.now(UTC) + self.ahead, usegmt=True)}
            if isinstance(body, str):
                return web.Response(status=status, text=body, content_type="text/html", headers=headers)
            return web.json_response(body, status=status, headers=headers)

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        self.server = TestServer(application)
        await self.server.start_server()

    async def close(self) -> None:
        assert self.server
        await self.server.close()

    @property
    def url(self) -> str:
        assert self.server
        return f"http://127.0.0.1:{self.server.port}"

    def client(self) -> SupabaseClient:
        """The adapter's client of this project, which retries without waiting."""
        guard = Guard(Breaker("supabase", ErrorCode.SUPABASE_UNAVAILABLE), attempts=2, backoff=Backoff(0, 0))
        return SupabaseClient(self.url, SecretStr(ANON), SecretStr(SERVICE), guard)

    def requests(self, path: str) -> int:
        return sum(request.path == path for request in self.seen)
