"""What clients and their drivers connect to: the API of each run below `/runs/<id>`, and the control of the suite.

`GET /scenarios` lists them, `POST /runs` begins one, `GET /runs/<id>/next` says what the client is to do, `POST
/runs/<id>/report` takes what it shows, `GET /runs/<id>/token` is its `getToken`. README.md has the contract."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from clients.conformance.run import PATIENCE, Run, Violation
from clients.conformance.scenarios import SCENARIOS
from clients.conformance.world import Json

RUNS: web.AppKey[dict[str, Run]] = web.AppKey("runs", dict)
REASONS = {1012: "draining", 4001: "token_expired", 4503: "account_closed"}
"""What an event stream says in its last event instead of a close code."""
TASKS: web.AppKey[set[asyncio.Task[None]]] = web.AppKey("tasks", set)
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Allow-Methods": "*",
}


class Socket:
    """A WebSocket of the client that has sent its token."""

    def __init__(self, run: Run, socket: web.WebSocketResponse, request: web.Request, token: str) -> None:
        self._run, self._socket, self._request = run, socket, request
        self.after = request.query.get("after")
        self.token = token
        self.incoming: asyncio.Queue[Json] = asyncio.Queue()

    async def send(self, *frames: Json) -> None:
        for frame in frames:
            self._run.frames.append(frame)
            await self._socket.send_json(frame)

    async def close(self, code: int) -> None:
        if code:
            await self._socket.close(code=code)
        elif self._request.transport is not None:
            self._request.transport.abort()

    async def receive(self, frame_type: str) -> Json:
        try:
            frame = await asyncio.wait_for(self.incoming.get(), PATIENCE)
        except TimeoutError:
            raise Violation(f"the client did not send {frame_type}") from None
        if frame["type"] != frame_type:
            raise Violation(f"sent {frame}, expected {frame_type}")
        return frame

    async def read(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                continue
            frame = message.json()
            if frame["type"] == "ping":
                await self._socket.send_json({"type": "pong"})
            else:
                self.incoming.put_nowait(frame)


class EventStream:
    """An event stream of the client. Commands come over REST: see `Run.post`."""

    def __init__(self, run: Run, response: web.StreamResponse, request: web.Request) -> None:
        self._run, self._response, self._request = run, response, request
        self.after = request.headers.get("Last-Event-ID") or request.query.get("after")
        self.token = _token(request)
        self.ended = asyncio.Event()

    async def send(self, *frames: Json) -> None:
        for frame in frames:
            self._run.frames.append(frame)
            cursor = f"id: {frame['epoch']}:{frame['seq']}\n" if "seq" in frame else ""
            await self._response.write(f"{cursor}event: {frame['type']}\ndata: {json.dumps(frame)}\n\n".encode())

    async def close(self, code: int) -> None:
        if code:
            reason = REASONS.get(code, "reconnect")
            await self.send({"type": "reconnect", "reason": reason, "reconnect": code < 4500})
        elif self._request.transport is not None:
            self._request.transport.abort()
        self.ended.set()

    async def receive(self, frame_type: str) -> Json:
        raise Violation(f"an event stream cannot carry {frame_type}")


# -- the API of a run -----------------------------------------------------------------------------------------------


async def stream(request: web.Request) -> web.StreamResponse:
    run = _run(request)
    if run.are_sockets_blocked:
        raise web.HTTPForbidden(text="a proxy blocks WebSockets")
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    if "Authorization" in request.headers:
        token = _token(request)
    else:
        first = await socket.receive_json(timeout=PATIENCE)
        token = first["token"] if first.get("type") == "auth" else ""
    if token != run.tokens[-1]:
        await socket.close(code=4001 if token in run.tokens else 4500)
        return socket
    link = Socket(run, socket, request, token)
    run.links.put_nowait(link)
    with suppress(ConnectionError):
        await link.read()
    return socket


async def events(request: web.Request) -> web.StreamResponse:
    run = _run(request)
    _check(request, run)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", **CORS})
    await response.prepare(request)
    await response.write(b": hello\n\n")
    link = EventStream(run, response, request)
    run.links.put_nowait(link)
    await link.ended.wait()
    return response


async def command(request: web.Request) -> web.Response:
    run = _run(request)
    _check(request, run)
    body = await request.json() if request.can_read_body else {}
    answer: asyncio.Future[tuple[int, Json]] = asyncio.get_running_loop().create_future()
    run.posts.put_nowait(((body or {}) | {"path": request.match_info["path"]}, answer))
    status, answered = await answer
    return web.json_response(answered, status=status)


async def history(request: web.Request) -> web.Response:
    run = _run(request)
    _check(request, run)
    limit = min(int(request.query.get("limit", 50)), run.page_size)
    if run.is_history_forbidden:
        return _problem(403, "forbidden")
    with_steps = request.query.get("include") == "steps"
    page = run.world.history(limit, request.query.get("before"), with_steps=with_steps)
    run.history_read.set()
    await run.history_answered.wait()
    return web.json_response(page)


async def turn(request: web.Request) -> web.Response:
    run = _run(request)
    _check(request, run)
    if request.match_info["turn_id"] not in run.world.turns:
        return _problem(404, "not_found")
    return web.json_response(run.world.turn(request.match_info["turn_id"]))


async def agent(request: web.Request) -> web.Response:
    run = _run(request)
    _check(request, run)
    return web.json_response(run.world.agent())


def _check(request: web.Request, run: Run) -> None:
    if (token := _token(request)) != run.tokens[-1]:
        problem = _problem(401, "token_expired" if token in run.tokens else "unauthorized")
        raise web.HTTPUnauthorized(text=problem.text, content_type="application/problem+json", headers=CORS)


def _problem(status: int, code: str) -> web.Response:
    body = {"type": f"/docs#{code}", "title": code, "status": status, "code": code, "detail": code, "retryable": False}
    return web.json_response(body | {"request_id": "1", "errors": []}, status=status)


def _token(request: web.Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def _run(request: web.Request) -> Run:
    run = request.app[RUNS].get(request.match_info["run"])
    if run is None:
        raise web.HTTPNotFound
    return run


# -- the control of the suite ---------------------------------------------------------------------------------------


async def scenarios(_: web.Request) -> web.Response:
    return web.json_response([{"name": name, "rule": rule} for name, (rule, _) in SCENARIOS.items()])


async def begin(request: web.Request) -> web.Response:
    name = (await request.json())["scenario"]
    run = Run()
    request.app[RUNS][run.id] = run
    task = asyncio.create_task(_play(run, name))
    request.app[TASKS].add(task)
    return web.json_response({"run": run.id, "url": f"http://{request.host}/runs/{run.id}"}, status=201)


async def _play(run: Run, name: str) -> None:
    try:
        async with asyncio.timeout(3 * PATIENCE):
            await SCENARIOS[name][1](run)
    except Exception as cause:  # whatever ended the script, the driver must learn of it
        run.client(do="end", passed=False, problem=f"{type(cause).__name__}: {cause}")
    else:
        run.client(do="end", passed=True, problem=None)
    finally:
        run.end()


async def next_action(request: web.Request) -> web.Response:
    return web.json_response(await _run(request).actions.get())


async def report(request: web.Request) -> web.Response:
    run = _run(request)
    difference = await run.compared(await request.json())
    return web.json_response({"accepted": difference is None, "difference": difference})


async def token(request: web.Request) -> web.Response:
    run = _run(request)
    run.expired_asked += request.query.get("expired") == "true"
    return web.json_response({"token": run.tokens[-1]})


@web.middleware
async def _allow_all_origins(request: web.Request, handler: Any) -> web.StreamResponse:
    response: web.StreamResponse = web.Response() if request.method == "OPTIONS" else await handler(request)
    if not response.prepared:
        response.headers.update(CORS)
    return response


def create_app() -> web.Application:
    app = web.Application(middlewares=[_allow_all_origins])
    app[RUNS], app[TASKS] = {}, set()
    api = "/runs/{run}/api/v1"
    app.add_routes(
        [
            web.get("/scenarios", scenarios),
            web.post("/runs", begin),
            web.get("/runs/{run}/next", next_action),
            web.post("/runs/{run}/report", report),
            web.get("/runs/{run}/token", token),
            web.get(f"{api}/chat/stream", stream),
            web.get(f"{api}/chat/events", events),
            web.get(f"{api}/chat/history", history),
            web.get(f"{api}/chat/turns/{{turn_id}}", turn),
            web.get(f"{api}/agent/status", agent),
            web.post(f"{api}/{{path:.*}}", command),
            web.options("/{path:.*}", scenarios),
        ]
    )
    app.on_shutdown.append(_end_runs)
    return app


async def _end_runs(app: web.Application) -> None:
    for task in app[TASKS]:
        task.cancel()
    await asyncio.gather(*app[TASKS], return_exceptions=True)
