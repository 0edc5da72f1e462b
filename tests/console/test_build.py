"""The console's sources are right, and what is committed is what they build."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.package import COMMITTED, SOURCE, ConsolePackage, console_package

PACKAGE_OF_SOURCE = re.compile(r".*node_modules/((?:@[^/]+/)?[^/]+)/")
STYLE_OF_PACKAGE = re.compile(r"""import\(?\s*["']((?:@[^/"']+/)?[^./"'][^/"']*)/[^"']+\.css""")
INLINE = re.compile(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", re.IGNORECASE)
DATA_ADDRESS = re.compile(r"""url\(\s*["']?data:|["'`]data:[\w.+-]+/[\w.+-]+[;,]""", re.IGNORECASE)
"""Not every `data:`: a sanitiser names the scheme that it removes."""
ELSEWHERE = re.compile(r"""(?:@import|url\(|\ssrc=|\shref=)\s*["']?(?:https?:)?//""", re.IGNORECASE)


@pytest.fixture(scope="module")
async def console(tmp_path_factory: pytest.TempPathFactory) -> ConsolePackage:
    return await console_package(tmp_path_factory.mktemp("console"))


@pytest.fixture(scope="module")
async def built(console: ConsolePackage) -> Path:
    return await console.build(console.folder.parent / "built")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


async def test_the_types_are_right(console: ConsolePackage) -> None:
    await console.tool("typescript/bin/tsc", "--noEmit")


async def test_the_unit_tests_pass(console: ConsolePackage) -> None:
    await console.tool("vitest/vitest.mjs", "run")


async def test_the_committed_build_is_what_the_sources_build(built: Path) -> None:
    expected, committed = files(built), files(COMMITTED)
    differing = {name for name in expected.keys() | committed.keys() if expected.get(name) != committed.get(name)}
    assert not differing, f"run `npm run build` in console/ and commit it; these differ: {sorted(differing)}"


def texts(folder: Path, *kinds: str) -> Iterator[tuple[str, str]]:
    for name, content in files(folder).items():
        if name.endswith(kinds):
            yield name, content.decode()


async def test_nothing_built_needs_an_exception_from_the_pages_policy(built: Path) -> None:
    found = [(name, match[0]) for name, text in texts(built, ".html") for match in INLINE.finditer(text)]
    for pattern in (DATA_ADDRESS, ELSEWHERE):
        checked = texts(built, ".html", ".css", ".js", ".webmanifest", ".svg")
        found += [(name, match[0]) for name, text in checked for match in pattern.finditer(text)]
    assert not found


async def test_the_licence_of_every_package_in_the_build_is_listed(console: ConsolePackage, built: Path) -> None:
    listed = set(re.findall(r"^## (\S+) - (\S+) \(", (built / "licenses.txt").read_text("utf-8"), re.MULTILINE))
    mapped = await console.build(console.folder.parent / "mapped", "--sourcemap")
    sources = {source for _, text in texts(mapped, ".map") for source in json.loads(text)["sources"]}
    bundled = {match[1] for source in sources if (match := PACKAGE_OF_SOURCE.match(source))}
    bundled |= set(styles_of_packages())
    locked = json.loads((SOURCE / "package-lock.json").read_text("utf-8"))["packages"]
    assert {"preact", "@preact/signals"} <= bundled
    assert {(name, locked[f"node_modules/{name}"]["version"]) for name in bundled} == listed


def styles_of_packages() -> Iterator[str]:
    """The packages whose stylesheets the sources import: a stylesheet has no map."""
    for path in SOURCE.glob("src/**/*.ts*"):
        yield from STYLE_OF_PACKAGE.findall(path.read_text("utf-8"))
