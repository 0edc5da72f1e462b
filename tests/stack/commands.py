"""`chat users`, as an operator of the running stack calls it."""

import asyncio
import os
import subprocess

from tests.stack.forked import run_chat
from tests.stack.running_stack import RunningStack


async def chat_users(stack: RunningStack, *arguments: str, **env: str) -> list[str]:
    """The output of a `chat users` command that must succeed."""
    done = await _run(stack, arguments, env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def chat_users_fails(stack: RunningStack, *arguments: str) -> str:
    """The error output of a `chat users` command that must fail."""
    done = await _run(stack, arguments, {})
    assert done.returncode != 0, done.stdout
    return done.stderr


async def _run(
    stack: RunningStack, arguments: tuple[str, ...], env: dict[str, str]
) -> "subprocess.CompletedProcess[str]":
    command = ("users", *arguments, "--env-file", str(stack.data_dir / "stack.env"))
    return await asyncio.to_thread(run_chat, *command, env=os.environ | env)
