"""A copy of `console/` with its packages installed, in which tests check and build it: nothing is written into the
repository."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.clients.js_package import NOT_COPIED, ROOT, installed
from tests.clients.processes import run

SOURCE = ROOT / "console"
COMMITTED = ROOT / "server" / "console" / "files"


@dataclass(frozen=True, slots=True)
class ConsolePackage:
    folder: Path
    node: Path

    async def tool(self, script: str, *arguments: str, into: Path | None = None) -> str:
        """The output of a program of `node_modules/`, which must succeed. A build is written to `into`."""
        env = {} if into is None else {"CONSOLE_OUT": str(into)}
        return await run(str(self.node), f"node_modules/{script}", *arguments, cwd=self.folder, env=env)

    async def build(self, into: Path, *options: str) -> Path:
        await self.tool("vite/bin/vite.js", "build", "--logLevel=warn", *options, into=into)
        return into


async def console_package(folder: Path) -> ConsolePackage:
    """The console in `folder`, beside the client that it is built with."""
    packages = await installed("console", SOURCE)
    place = folder / "console"
    shutil.copytree(SOURCE, place, ignore=NOT_COPIED)
    shutil.copytree(ROOT / "clients" / "js", folder / "clients" / "js", ignore=NOT_COPIED)
    shutil.copytree(ROOT / "docs", folder / "docs")
    (place / "node_modules").symlink_to(packages.folder / "node_modules")
    return ConsolePackage(place, packages.node.program)
