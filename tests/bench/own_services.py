"""Letta and LiteLLM as fast as they could be: they store nothing, and answer at once what the server asks of them.

Conversations stream as in `upstream`. With them the platform's own part of a registration is measured. Given a real
Letta, it makes the agents, and only the streams are ours.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import click
import uvloop
from aiohttp import web

from tests.bench.upstream import Upstream, paced

MODEL = {
    "model_name": "gpt-4",
    "model_info": {"input_cost_per_token": 0.00003, "output_cost_per_token": 0.00006},
}

FORWARDED = ("Authorization", "user_id", "Content-Type")

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def says(body: object, status: int = 200) -> Answer:
    """Answers with JSON."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.json_response(body, status=status)

    return answer


def makes(prefix: str, **fields: object) -> Answer:
    """Answers with a new object: an id that begins with `prefix`, and these fields."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.json_response({"id": f"{prefix}-{uuid.uuid4()}", **fields})

    return answer


async def customer(request: web.Request) -> web.StreamResponse:
    """The customer that is asked for, without keys and limits."""
    user_id = request.query["user_id"]
    return web.json_response({"user_id": user_id, "user_info": {"user_id": user_id, "spend": 0.0}, "keys": []})


def forwards(letta: str, client: list[aiohttp.ClientSession]) -> Answer:
    """Answers as the real Letta at this address does."""

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        body = await request.read()
        async with client[0].request(request.method, letta + request.path_qs, data=body, headers=headers) as answered:
            content_type = answered.headers.get("Content-Type", "application/json")
            headers = {"Content-Type": content_type}
            return web.Response(status=answered.status, body=await answered.read(), headers=headers)

    return answer


def routes() -> list[web.RouteDef]:
    """What Letta and LiteLLM are asked at the start of a server, at registrations and at turns, but for streams."""
    letta = [
        web.get("/v1/health/", says({"version": "0.16.8", "status": "ok"})),
        web.get("/v1/admin/{kind}/", says([])),
        web.post("/v1/admin/orgs/", makes("org")),
        web.post("/v1/admin/users/", makes("user")),
        web.post("/v1/tools/add-base-tools", says([])),
        web.get("/v1/providers/", says([])),
        web.post("/v1/providers/", makes("provider")),
        web.get("/v1/agents/", says([])),
        web.post("/v1/agents/", makes("agent")),
        web.get("/v1/conversations/", says([])),
        web.post("/v1/conversations/", makes("conv", agent_id="agent-1")),
    ]
    litellm = [
        web.get("/health/liveliness", says("I'm alive!")),
        web.get("/health/readiness", says({"status": "healthy", "db": "connected"})),
        web.get("/health/readiness/details", says({"litellm_version": "1.106.2"})),
        web.get("/model/info", says({"data": [MODEL]})),
        web.post("/user/new", says({})),
        web.get("/user/info", customer),
        web.post("/key/generate", says({})),
        web.get("/spend/logs/v2", says({"data": []})),
    ]
    return letta + litellm


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--rate", type=float, default=20.0)
@click.option("--chunks", type=int, default=200)
@click.option("--letta", help="Make the agents at this Letta.")
def main(port: int, rate: float, chunks: int, letta: str | None) -> None:
    """Serve both at one port; their paths differ."""
    uvloop.install()
    upstream = Upstream(rate, chunks, together=1)
    client: list[aiohttp.ClientSession] = []

    async def pacing(_app: web.Application) -> AsyncIterator[None]:
        async with paced(upstream), aiohttp.ClientSession() as session:
            client.append(session)
            yield

    app = web.Application()
    app.router.add_post("/v1/conversations/{id}/messages", upstream.answer)
    if letta is None:
        app.add_routes(routes())
    else:
        app.router.add_route("*", "/{path:.*}", forwards(letta, client))
    app.cleanup_ctx.append(pacing)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
