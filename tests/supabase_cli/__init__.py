"""Supabase's own CLI, at the version that `package-lock.json` here pins, on a copy of the project's folder."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from server.stack.environments import Node, NodePackages
from server.stack.layout import Layout

SOURCE = Path(__file__).parent
PROJECT = SOURCE.parent.parent / "supabase"


@dataclass(frozen=True, slots=True)
class SupabaseCli:
    """`folder` has the copy of `supabase/` in it."""

    program: Path
    node: Path
    folder: Path

    @property
    def migrations(self) -> Path:
        """The folder of the migrations."""
        return self.folder / "supabase" / "migrations"

    def push(self, dsn: str) -> tuple[int, str]:
        """`supabase db push`: its exit code and output."""
        done = subprocess.run(
            [self.program, "db", "push", "--db-url", f"{dsn}?sslmode=disable", "--yes", "--workdir", self.folder],
            env={
                "HOME": str(self.folder),
                "PATH": f"{self.node.parent}:{os.environ['PATH']}",
                "DO_NOT_TRACK": "1",
                "SUPABASE_TELEMETRY_DISABLED": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return done.returncode, done.stdout.decode()


async def install(data_dir: Path) -> tuple[Path, Path]:
    """The programs of the CLI and of Node. Installed once, beside the software of the stack in `data_dir`."""
    node = Node(Layout(data_dir, api_port=0))
    packages = NodePackages(node, "supabase-cli", SOURCE)
    await packages.install(lambda _: None)
    return packages.folder / "node_modules" / ".bin" / "supabase", Path(node.program)


@contextmanager
def supabase_cli(program: Path, node: Path) -> Iterator[SupabaseCli]:
    """The CLI in a folder of its own."""
    with TemporaryDirectory() as folder:
        shutil.copytree(PROJECT, Path(folder) / "supabase")
        yield SupabaseCli(program, node, Path(folder))
