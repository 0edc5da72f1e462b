"""A fast replacement for Letta's streaming endpoint: every stream gets `rate` chunks a second, on time.

Each chunk's text is the monotonic clock in nanoseconds at which it was written, so a reader on this machine can compute
its age."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import click
import uvloop
from aiohttp import web

_SLICES = 20
"""Streams are spread over this many moments of each period, as independent models would be."""

_CHUNK = (
    b'data: {"id":"message-%s","date":"2026-11-23T15:30:33+00:00","name":null,"message_type":"assistant_message",'
    b'"otid":"9d3cedee-2143-4aa2-bb71-ac0628e0c880","sender_id":null,'
    b'"step_id":"step-d5b6f6b9-94ab-44e4-ac9c-37005a158537","is_err":null,"seq_id":%d,"run_id":"run-%s",'
    b'"content":"%d "}\n\n'
)
_END = (
    b'data: {"message_type":"stop_reason","stop_reason":"end_turn"}\n\n'
    b'data: {"message_type":"usage_statistics","completion_tokens":9,"prompt_tokens":721,"total_tokens":730,'
    b'"step_count":1,"run_ids":null,"cached_input_tokens":0,"cache_write_tokens":null,"reasoning_tokens":0,'
    b'"context_tokens":730}\n\ndata: [DONE]\n\n'
)


@dataclass(slots=True, eq=False)
class _Stream:
    response: web.StreamResponse
    id: bytes = field(default_factory=lambda: str(uuid.uuid4()).encode())
    written: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Upstream:
    """Streams that wait until enough have joined, then all run at the same rate."""

    def __init__(self, rate: float, chunks: int, together: int) -> None:
        self._rate = rate
        self._chunks = chunks
        self._together = together
        self._slices: list[list[_Stream]] = [[] for _ in range(_SLICES)]
        self._joined = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One stream, to its end."""
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        stream = _Stream(response)
        await response.write(b'data: {"message_type":"ping","run_id":"run-%s"}\n\n' % stream.id)
        self._slices[self._joined % _SLICES].append(stream)
        self._joined += 1
        await stream.done.wait()
        return response

    async def pace(self) -> None:
        """Write to the streams of one slice after the other, until the process ends."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for streams in self._slices:
                due += 1 / self._rate / _SLICES
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                if self._joined >= self._together:
                    for stream in tuple(streams):
                        await self._write(stream, streams)

    async def _write(self, stream: _Stream, streams: list[_Stream]) -> None:
        """The stream's next chunk, or its end. A reader that has left ends its own stream only."""
        try:
            if stream.written < self._chunks:
                stream.written += 1
                await stream.response.write(_CHUNK % (stream.id, stream.written, stream.id, time.monotonic_ns()))
                return
            await stream.response.write(_END)
            await stream.response.write_eof()
        except ConnectionResetError:
            pass
        streams.remove(stream)
        if not any(self._slices):
            self._joined = 0
        stream.done.set()


@asynccontextmanager
async def paced(upstream: Upstream) -> AsyncIterator[None]:
    """Write to its streams until the end of the block."""
    task = asyncio.create_task(upstream.pace())
    yield
    task.cancel()


async def _health(_request: web.Request) -> web.StreamResponse:
    return web.json_response({"status": "ok"})


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--rate", type=float, default=20.0)
@click.option("--chunks", type=int, default=200)
@click.option("--together", type=int, default=200)
def main(port: int, rate: float, chunks: int, together: int) -> None:
    """Serve streams."""
    uvloop.install()
    upstream = Upstream(rate, chunks, together)

    async def pacing(_app: web.Application) -> AsyncIterator[None]:
        async with paced(upstream):
            yield

    app = web.Application()
    app.router.add_get("/v1/health/", _health)
    app.router.add_post("/{path:.*}", upstream.answer)
    app.cleanup_ctx.append(pacing)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
