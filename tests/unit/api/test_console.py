"""The files of the console: what is sent, how long it is cached, and that nothing else is reachable."""

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from multidict import CIMultiDictProxy
from yarl import URL

from server.api.console import read_build
from tests.unit.api.world import Answer, World

PAGE = "<!doctype html><title>Console</title><script type=module src=/assets/index-B1a2.js></script>"
SCRIPT = "export const words = 'many words '\n" * 50
BUILD = {
    "index.html": PAGE,
    "manifest.webmanifest": '{"name": "Chat"}',
    "sw.js": "self.addEventListener('fetch', () => {})",
    "icon.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
    "icon-192.png": "\x89PNG",
    "favicon.ico": "icon",
    "licenses.txt": "MIT",
    "assets/index-B1a2.js": SCRIPT,
    "assets/index-C3d4.css": "body { color: CanvasText }",
    "assets/font-E5f6.woff2": "wOF2",
    "assets/.hidden": "no",
}
TYPES = {
    "/": "text/html; charset=utf-8",
    "/index.html": "text/html; charset=utf-8",
    "/manifest.webmanifest": "application/manifest+json",
    "/sw.js": "text/javascript; charset=utf-8",
    "/icon.svg": "image/svg+xml",
    "/icon-192.png": "image/png",
    "/favicon.ico": "image/x-icon",
    "/licenses.txt": "text/plain; charset=utf-8",
    "/assets/index-B1a2.js": "text/javascript; charset=utf-8",
    "/assets/index-C3d4.css": "text/css; charset=utf-8",
    "/assets/font-E5f6.woff2": "font/woff2",
}
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
IDENTITY = {"Accept-Encoding": "identity"}


def write_build(folder: Path) -> Path:
    for name, text in BUILD.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))
    return folder


def vary(answer: Answer) -> list[str]:
    assert isinstance(answer.headers, CIMultiDictProxy)
    return answer.headers.getall("Vary")


@pytest.fixture
async def hosted(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "secret.txt").write_text("of the machine")
    async with World(console=read_build(write_build(tmp_path / "build"))).serving() as running:
        yield running


@pytest.mark.parametrize(("path", "media_type"), TYPES.items())
async def test_each_file_has_its_type_the_strict_policy_and_an_etag(hosted: World, path: str, media_type: str) -> None:
    answer = await hosted.visitor.get(path, headers=IDENTITY)
    assert (answer.status, answer.headers["Content-Type"]) == (200, media_type)
    assert answer.raw == BUILD[path[1:] or "index.html"].encode("latin-1")
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', answer.headers["ETag"])


@pytest.mark.parametrize("path", TYPES)
async def test_only_names_with_a_hash_are_kept_without_asking(hosted: World, path: str) -> None:
    kept = (await hosted.visitor.get(path)).headers["Cache-Control"]
    assert kept == ("public, max-age=31536000, immutable" if path.startswith("/assets/") else "no-cache")


@pytest.mark.parametrize("path", ["/", "/sw.js", "/assets/index-B1a2.js"])
async def test_what_the_client_has_is_not_sent_again(hosted: World, path: str) -> None:
    first = await hosted.visitor.get(path)
    etag = first.headers["ETag"]
    for known in (etag, etag.removeprefix("W/"), f'"x", {etag}', "*"):
        again = await hosted.visitor.get(path, headers={"If-None-Match": known})
        assert (again.status, again.raw, again.headers["ETag"]) == (304, b"", etag)
        assert again.headers["Cache-Control"] == first.headers["Cache-Control"]
        assert "Accept-Encoding" in vary(again)
    changed = await hosted.visitor.get(path, headers={"If-None-Match": 'W/"of an earlier build"'})
    assert (changed.status, changed.raw) == (200, first.raw)


async def test_gzip_is_sent_to_those_who_accept_it_where_it_is_shorter(hosted: World) -> None:
    path = "/assets/index-B1a2.js"
    for accepted, encoding in (("gzip, br", "gzip"), ("br;q=1, *;q=0.1", "gzip"), ("gzip;q=0", None), ("br", None)):
        head = await hosted.visitor.request("HEAD", path, headers={"Accept-Encoding": accepted})
        answer = await hosted.visitor.get(path, headers={"Accept-Encoding": accepted})  # decoded by the client
        assert answer.headers.get("Content-Encoding") == encoding
        assert answer.raw == SCRIPT.encode()
        assert "Accept-Encoding" in vary(answer)
        sent = len(gzip.compress(SCRIPT.encode())) if encoding else len(SCRIPT)
        assert head.headers["Content-Length"] == answer.headers["Content-Length"] == str(sent)
        assert (head.status, head.raw, head.headers["ETag"]) == (200, b"", answer.headers["ETag"])
    short = await hosted.visitor.get("/icon-192.png", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in short.headers


@pytest.mark.parametrize(
    "path",
    [
        "/assets/",
        "/assets/unknown.js",
        "/assets/.hidden",
        "/assets/%2e%2e%2f%2e%2e%2fsecret.txt",
        "/assets/..%5c..%5csecret.txt",
        "/assets/%2Fetc%2Fpasswd",
        "/..%2fsecret.txt",
        "/secret.txt",
        "/files/index.html",
        "/assets",
    ],
)
async def test_nothing_but_the_build_is_reachable(hosted: World, path: str) -> None:
    async with hosted.http.get(URL(path, encoded=True)) as answer:
        assert str(answer.url.raw_path) == path
        assert (answer.status, (await answer.json())["code"]) == (404, "not_found")


async def test_files_are_only_read(hosted: World) -> None:
    for path in ("/sw.js", "/assets/index-B1a2.js"):
        assert (await hosted.visitor.post(path)).status == 405


async def test_the_api_and_the_other_pages_stay_beside_the_console(hosted: World) -> None:
    for path in ("/docs", "/auth/callback", "/openapi.json", "/health", "/pages/style.css"):
        assert (await hosted.visitor.get(path)).status == 200
    assert not any("assets" in path for path in (await hosted.visitor.get("/openapi.json")).json["paths"])


async def test_the_page_of_mail_links_knows_whether_there_is_a_console(hosted: World, world: World) -> None:
    for server, has_console in ((hosted, b'data-console="on"'), (world, b'data-console="off"')):
        assert has_console in (await server.visitor.get("/auth/callback")).raw


async def test_without_a_console_there_is_the_plain_page_and_nothing_else(world: World) -> None:
    answer = await world.visitor.get("/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"/openapi.json" in answer.raw
    for path in ("/index.html", "/sw.js", "/manifest.webmanifest", "/assets/index-B1a2.js"):
        assert (await world.visitor.get(path)).status == 404


def test_a_checkout_without_a_build_has_no_console(tmp_path: Path) -> None:
    assert read_build(tmp_path / "missing") == {}
    (tmp_path / ".gitkeep").touch()
    (tmp_path / "leftover.js").touch()
    assert read_build(tmp_path) == {}
