"""Runs the Node tests of the pure parts of LiteLLM's database engine, without packages or a database."""

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = sorted((Path(__file__).parent / "litellm_engine").glob("*.test.mjs"))
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="needs `node` on PATH; tests/stack runs the whole engine with the stack's own")
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_engine(file: Path) -> None:
    assert NODE is not None
    finished = subprocess.run([NODE, "--test", str(file)], capture_output=True, text=True, check=False, timeout=400)

    assert finished.returncode == 0, finished.stdout + finished.stderr
