"""A copy of `clients/js` with its packages installed, in which tests build and run it: nothing is written into the
repository."""

import os
import shutil
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from server.stack.environments import Node, NodePackages
from server.stack.layout import Layout
from tests.clients.processes import OnLine, run

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "clients" / "js"
DATA_DIR = Path(os.environ.get("CHAT_TEST_DIR", ROOT / ".chat-test")).absolute() / "stack"
WITH_SOCKETS = "--experimental-websocket"
CLIENT = "@ai-chat-platform/client"
NOT_COPIED = shutil.ignore_patterns("node_modules", "dist", "build")


@dataclass(frozen=True, slots=True)
class JsPackage:
    folder: Path
    node: Path
    oldest_node: Path
    """The oldest version that the package supports. It has no WebSocket, unless `WITH_SOCKETS` is given."""
    npm: tuple[str, ...]

    async def run(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        each_line: OnLine | None = None,
        cwd: Path | None = None,
        text_in: str = "",
    ) -> str:
        """The output of a command, which must succeed. `each_line` is awaited with each line as it comes."""
        return await run(*argv, cwd=cwd or self.folder, env=env, each_line=each_line, text_in=text_in)

    async def packed(self) -> Path:
        """The file that would be published, built."""
        await self.run(str(self.node), "scripts/build.mjs")
        await self.run(*self.npm, "pack", "--ignore-scripts")
        return next(self.folder.glob("*.tgz"))

    async def install_into(self, app: Path, packages: NodePackages | None = None) -> None:
        """Give `app` a `node_modules` with the packed client, and with these packages."""
        modules = app / "node_modules"
        modules.mkdir()
        if packages is not None:
            await packages.install(lambda _: None)
            for folder in (packages.folder / "node_modules").iterdir():
                (modules / folder.name).symlink_to(folder)
        with tarfile.open(await self.packed()) as archive:
            archive.extractall(modules, filter="data")
        (modules / CLIENT).parent.mkdir()
        (modules / "package").rename(modules / CLIENT)

    async def script(
        self, name: str, *arguments: str, env: Mapping[str, str] | None = None, each_line: OnLine | None = None
    ) -> str:
        """The output of a compiled script of `test/`."""
        return await self.run(str(self.node), f"build/test/{name}.js", *arguments, env=env, each_line=each_line)


async def installed(name: str, source: Path) -> NodePackages:
    """The packages that `source` locks, installed once, beside the software of the test stack."""
    packages = NodePackages(Node(Layout.open(DATA_DIR, api_port=0)), name, source)
    await packages.install(lambda _: None)
    return packages


@asynccontextmanager
async def js_package(folder: Path) -> AsyncIterator[JsPackage]:
    """The package, compiled to `build/` there."""
    packages = await installed("clients-js", SOURCE)
    node = packages.node
    oldest = Node(node.layout, "node-20", Path(__file__).with_name("node-20.txt"))
    await oldest.install(lambda _: None)
    place = folder / "clients" / "js"
    shutil.copytree(SOURCE, place, ignore=NOT_COPIED)
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "LICENSE", folder / "LICENSE")
    (place / "node_modules").symlink_to(packages.folder / "node_modules")
    package = JsPackage(place, node.program, oldest.program, node.npm)
    await package.run(str(node.program), "node_modules/typescript/bin/tsc", "--outDir", "build")
    yield package
