"""The model whose streams are paced."""

import asyncio

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.bench.upstream import Upstream, paced


async def test_a_reader_that_leaves_does_not_end_the_other_streams() -> None:
    upstream = Upstream(rate=100.0, chunks=20, together=2)
    app = web.Application()
    app.router.add_post("/", upstream.answer)
    async with (
        TestServer(app) as server,
        paced(upstream),
        aiohttp.ClientSession() as leaving,
        aiohttp.ClientSession() as staying,
        asyncio.timeout(30),
    ):
        first, second = await asyncio.gather(leaving.post(server.make_url("/")), staying.post(server.make_url("/")))
        first.close()
        text = await second.text()
    assert text.count('"content"') == 20
    assert text.endswith("data: [DONE]\n\n")
