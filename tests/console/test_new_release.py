"""A deploy of the console while pages of the last release are open: they keep their parts, and the next load is new.

The server has services in memory, and its files are replaced as a deploy replaces them: the old ones are gone at once.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Browser, expect

from server.api.console import BuiltFile, read_build
from tests.conftest import BROWSER_SECONDS
from tests.console.package import COMMITTED
from tests.console.person import People, Person, people
from tests.stack.chat_client import register
from tests.unit.api.world import World

INSTALLED: Final = "() => navigator.serviceWorker.ready.then(() => !!navigator.serviceWorker.controller)"
CACHES: Final = "async () => (await caches.keys()).filter((name) => name.startsWith('console-'))"
UPDATE: Final = "async () => (window.update = await navigator.serviceWorker.ready).update().then(() => {})"
"""Check for a newer service worker now, which the browser does a few seconds after it has loaded a page."""
HASHED: Final = re.compile(rb"-([\w-]{8})\.(js|css)\b")
PAGE_HASH: Final = re.compile(rb'(PAGE_SHA256 = ")[0-9a-f]{64}')
CACHE: Final = re.compile(rb'"console-[0-9a-f]{12}"')
NOT_LOADED: Final = "This part of the page could not be loaded. Check the connection and reload the page."
NEXT_CACHE: Final = "console-000000000002"


def next_release(folder: Path) -> dict[str, BuiltFile]:
    """The committed build as another release: its assets have other names, and so the page has another hash."""
    names = {path.name.encode() for path in (COMMITTED / "assets").iterdir()}
    renamed = {name: HASHED.sub(rb"-next\1.\2", name) for name in names}
    assert all(new != old for old, new in renamed.items())

    def rewritten(content: bytes) -> bytes:
        for old, new in renamed.items():
            content = content.replace(old, new)
        return content

    page = rewritten((COMMITTED / "index.html").read_bytes())
    for path in COMMITTED.rglob("*.*"):
        content = rewritten(path.read_bytes()) if path.suffix in (".html", ".js", ".css") else path.read_bytes()
        if path.name == "sw.js":
            content = PAGE_HASH.sub(rb"\g<1>" + hashlib.sha256(page).hexdigest().encode(), content)
            content = CACHE.sub(f'"{NEXT_CACHE}"'.encode(), content)
        target = folder / path.relative_to(COMMITTED)
        target = target.with_name(renamed.get(path.name.encode(), path.name.encode()).decode())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return read_build(folder)


@dataclass
class Site:
    """A server with the committed build, and its next release. `refused`: requests for files that are not there."""

    world: World
    next: dict[str, BuiltFile]
    files: dict[str, BuiltFile] = field(default_factory=read_build)
    refused: list[str] = field(default_factory=list)

    def deploy(self) -> None:
        assert self.files.keys() - self.next.keys(), "files of the old release go"
        self.files.clear()
        self.files.update(self.next)

    def watch(self, app: web.Application) -> None:
        async def prepared(request: web.Request, response: web.StreamResponse) -> None:
            if response.status >= 400:
                self.refused.append(f"{response.status} {request.path}")

        app.on_response_prepare.append(prepared)

    @property
    def url(self) -> str:
        return str(self.world.http.make_url("/")).rstrip("/")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(World(environment="development"), next_release(tmp_path))
    site.world.console = site.files
    async with site.world.serving(site.watch):
        yield site


@pytest.fixture
async def console(browser: Browser, site: Site, language: str) -> AsyncIterator[People]:
    async with people(browser, site.url, language) as opened:
        yield opened


async def arrives(console: People, http: aiohttp.ClientSession, **options: Any) -> Person:
    person = await console.arrives(await register(http, console.url), **options)
    await person.is_connected()
    assert not await is_new(person)
    return person


async def is_new(person: Person) -> bool:
    """Whether all code and styles that the page has loaded are of the next release, or all of the old one."""
    loaded = await person.page.evaluate("() => performance.getEntriesByType('resource').map(({ name }) => name)")
    [release] = {"-next" in name for name in loaded if "/assets/" in name}
    return release


async def test_an_open_page_keeps_its_parts_and_its_reload_is_the_new_release(
    console: People, site: Site, http: aiohttp.ClientSession
) -> None:
    person = await arrives(console, http)
    await person.page.evaluate(INSTALLED)
    site.deploy()
    await person.go("Usage")  # its code was not loaded before
    await person.settles()
    assert not await is_new(person)
    await person.page.reload()
    await person.is_connected()
    await person.go("Chat")
    await expect(person.composer).to_be_visible()
    assert await is_new(person)

    await person.page.evaluate(UPDATE)
    await person.page.wait_for_function("() => update.waiting")
    context = person.page.context
    await context.new_page()  # a profile ends with its last page
    await person.page.close()
    again = Person(await context.new_page(), site.url, person.words, person.watch)
    async with asyncio.timeout(BROWSER_SECONDS):
        while True:  # a page that opens before the last one is quite gone still has the old service worker
            await again.open()
            await again.is_connected()
            assert await is_new(again)
            if await again.page.evaluate(CACHES) == [NEXT_CACHE]:
                break
            await again.page.goto("about:blank")
            await again.page.wait_for_timeout(500)
    assert site.refused == []


async def test_where_nothing_was_stored_a_part_that_is_gone_says_so_and_reloading_brings_the_new_release(
    console: People, site: Site, http: aiohttp.ClientSession
) -> None:
    person = await arrives(console, http, service_workers="block")
    site.deploy()
    await person.link("Usage").click()
    await person.sees(person.words[NOT_LOADED])
    assert site.refused
    await person.button("Try again").click()
    await person.settles()
    await expect(person.link("Usage")).to_have_attribute("aria-current", "page")
    assert await is_new(person)
    assert not any("-next" in line for line in site.refused)
    person.watch.found = [line for line in person.watch.found if "assets/" not in line]
