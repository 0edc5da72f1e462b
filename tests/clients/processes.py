"""Commands that tests of the clients run."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

OnLine = Callable[[str], Awaitable[None]]
SECONDS = 300
"""A generous limit of each command."""


async def run(
    *argv: str, cwd: Path, env: Mapping[str, str] | None = None, each_line: OnLine | None = None, text_in: str = ""
) -> str:
    """The output of a command, which must succeed. `each_line` is awaited with each line as it comes."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        env={**os.environ, **(env or {}), "NODE_NO_WARNINGS": "1"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(text_in.encode())
    process.stdin.close()
    lines: list[str] = []
    try:
        async with asyncio.timeout(SECONDS):
            async for line in process.stdout:
                lines.append(line.decode())
                if each_line is not None:
                    await each_line(lines[-1])
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = "".join(lines)
    assert process.returncode == 0, text
    return text
