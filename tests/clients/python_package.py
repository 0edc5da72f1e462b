"""`clients/python`, whose scripts tests run, and which they build."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.clients.processes import OnLine, run

SOURCE = Path(__file__).parents[2] / "clients" / "python"


@dataclass(frozen=True, slots=True)
class PythonPackage:
    folder: Path = SOURCE
    interpreter: str = sys.executable

    async def script(
        self, name: str, *arguments: str, env: Mapping[str, str] | None = None, each_line: OnLine | None = None
    ) -> str:
        """The output of a script of `test/`."""
        return await self.run(f"test/{name}.py", *arguments, env=env, each_line=each_line)

    async def run(
        self, script: str, *arguments: str, env: Mapping[str, str] | None = None, each_line: OnLine | None = None
    ) -> str:
        return await run(self.interpreter, script, *arguments, cwd=self.folder, env=env, each_line=each_line)
