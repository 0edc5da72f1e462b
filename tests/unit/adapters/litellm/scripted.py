"""A LiteLLM with scripted answers, worded like the real one, that records its requests."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from server.adapters.litellm.client import LiteLLMClient
from server.protocol.codes import ErrorCode
from server.resilience import Backoff, Breaker, Guard

MASTER_KEY = "sk-the-master-key"


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str | None


@dataclass(slots=True)
class ScriptedLiteLLM:
    """`answers` by path: each request takes the next one (status, body); the last one stays. `computed`, by path,
    are made from the query."""

    answers: dict[str, list[tuple[int, object]]] = field(default_factory=dict)
    computed: dict[str, Callable[[dict[str, str]], tuple[int, object]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def says(self, path: str, *answers: tuple[int, object]) -> None:
        self.answers[path] = list(answers)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        authorization = request.headers.get("Authorization")
        self.asked.append(Asked(request.method, request.path, dict(request.query), body, authorization))
        if request.path in self.computed:
            status, answer = self.computed[request.path](dict(request.query))
        else:
            script = self.answers[request.path]
            status, answer = script.pop(0) if len(script) > 1 else script[0]
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return web.Response(status=status, text=text, content_type="application/json")


@asynccontextmanager
async def connected(service: ScriptedLiteLLM, guard: Guard | None = None) -> AsyncIterator[LiteLLMClient]:
    """A client of this LiteLLM that retries once, without a pause."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    guard = guard or Guard(Breaker("litellm", ErrorCode.LITELLM_UNAVAILABLE), attempts=2, backoff=Backoff(0, 0))
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield LiteLLMClient(str(server.make_url("/")), SecretStr(MASTER_KEY), session, guard)


def error(message: str, param: str | None = None, kind: str = "internal_server_error") -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "param": param, "code": "x"}}
