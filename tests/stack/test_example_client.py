"""The README's terminal client, with piped input, on real services, and with a server that dies meanwhile."""

import asyncio
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.faults.chaos import ChaosProxy
from tests.stack.chat_client import ChatUser
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import RunningStack
from tests.stack.waiting import ended

CLIENT = Path(__file__).resolve().parents[2] / "examples" / "chat.py"
TIMEOUT = 90.0


@asynccontextmanager
async def chatting(url: str, email: str) -> AsyncIterator[Process]:
    """The client, registered (or signed in) as `email`."""
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, str(CLIENT), "--url", url, "--email", email, "--password", "Passw0rd-2026", "--name", "Ada"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield client
    finally:
        if client.returncode is None:
            client.kill()
        await client.wait()


def type_lines(client: Process, *lines: str) -> None:
    assert client.stdin is not None
    client.stdin.write("".join(f"{line}\n" for line in lines).encode())


async def read_until(client: Process, seen: Callable[[str], bool]) -> str:
    """The client's output once the condition holds, or the client has ended."""
    assert client.stdout is not None
    output = ""
    try:
        async with asyncio.timeout(TIMEOUT):
            while not seen(output) and (piece := await client.stdout.read(4096)):
                output += piece.decode()
    except TimeoutError:
        raise AssertionError(f"the client only wrote: {output}") from None
    return output


async def end_of_input(client: Process) -> str:
    """End the input, and return the rest of the client's output until it exits."""
    assert client.stdin is not None
    client.stdin.close()
    output = await read_until(client, lambda _: False)
    assert await client.wait() == 0, output
    return output


async def test_the_example_registers_talks_and_signs_in_again(stack: RunningStack) -> None:
    email = f"{uuid.uuid4().hex[:12]}@example.com"
    async with chatting(stack.url, email) as client:
        type_lines(client, "Please remember that my cat is called Momo.")
        output = await end_of_input(client)
        assert "agent: " in output
        assert "tokens, $" in output
    async with chatting(stack.url, email) as client:
        type_lines(client, "What is my cat called?")
        assert "Momo" in await end_of_input(client)


async def test_the_example_shows_the_whole_reply_although_the_server_dies_meanwhile(
    own_stack: RunningStack, own_server: ServerProcess, http: aiohttp.ClientSession
) -> None:
    gate = uuid.uuid4().hex
    async with chatting(own_stack.url, f"{uuid.uuid4().hex[:12]}@example.com") as client:
        type_lines(client, f"GATE {gate} 2 3")
        before = await read_until(client, lambda text: "agent: w0 w1" in text)
        own_server.kill()
        await read_until(client, lambda text: "reconnecting" in text)
        await own_server.restart()
        await own_stack.open_gate(http, gate)
        after = await end_of_input(client)
    assert "agent: w0 w1" in before
    assert "agent: w0 w1 w2 w3 w4" in after


async def test_the_example_shows_a_reply_that_ended_while_it_was_not_connected_and_ends(
    own_stack: RunningStack, own_server: ServerProcess, http: aiohttp.ClientSession, bob: ChatUser
) -> None:
    gate = uuid.uuid4().hex
    async with ChaosProxy(own_server.port) as proxy, chatting(proxy.url, bob.email) as client:
        type_lines(client, f"GATE {gate} 2 3")
        await read_until(client, lambda text: "agent: w0 w1" in text)
        turn_id = (await bob.get("/agent/status"))["turn"]["turn_id"]
        await proxy.refuse()
        own_server.kill()
        await own_stack.open_gate(http, gate)
        await own_server.restart()
        await ended(bob, turn_id)
        proxy.listen()
        assert "agent: w0 w1 w2 w3 w4" in await end_of_input(client)
