"""A web site of the tests' own: another origin than the platform's, like that of an app."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

PAGE = '<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>app</title>{scripts}</html>'


@asynccontextmanager
async def serve_site(scripts: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """The site's origin, `http://localhost:<port>`. Every path is a page that runs `scripts` (text by name)."""
    texts = dict(scripts or {})
    tags = "".join(f'<script src="/_scripts/{name}"></script>' for name in texts)

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE.format(scripts=tags), content_type="text/html")

    async def script(request: web.Request) -> web.Response:
        return web.Response(text=texts[request.match_info["name"]], content_type="text/javascript")

    app = web.Application()
    app.router.add_get("/_scripts/{name}", script)
    app.router.add_get("/{path:.*}", page)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        yield f"http://localhost:{port}"
    finally:
        await runner.cleanup()
