"""The chat in a terminal, on real services: as a newcomer meets it, with a server that dies, and with other devices."""

import uuid
from pathlib import Path

import aiohttp

from tests.faults.chaos import ChaosProxy
from tests.stack.chat_client import ChatUser
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import RunningStack
from tests.unit.clients.talk.terminal_process import piped, talking

PASSWORD = "Passw0rd-2026"
CTRL_C, CTRL_D = "\x03", "\x04"


async def test_a_person_registers_talks_stops_looks_at_the_memory_and_comes_back(
    stack: RunningStack, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    gate = uuid.uuid4().hex
    async with talking(tmp_path, "--url", stack.url) as person:
        await person.enter("E-mail:", f"{uuid.uuid4().hex[:12]}@example.com")
        await person.enter("Password:", PASSWORD)
        await person.enter("? [y/N]", "y")
        await person.enter("The same password again:", PASSWORD)
        await person.enter("Your name", "Ada")
        await person.enter("Type a message.", "Please remember that my cat is called Momo.")
        await person.shows(
            "✓ remembers: human · My cat is called Momo", "Done, I will remember", " tokens · 2 model calls · $"
        )
        person.type(f"GATE {gate} 2 3\r")
        await person.shows("w0 w1", "Ctrl-C stops the reply")
        person.type(CTRL_C)
        await person.shows("■ Stopped. /retry tries again.")
        person.type("/memory\r")
        await person.shows("User's name: Ada", "context")
        person.type("/usage\r")
        await person.shows("messages", "cost", "gpt-4")
        person.type("/search mom\r")
        await person.shows("  ❯ Please remember that my cat is called Momo.")
        person.type("/devices\r")
        await person.shows("this terminal", "websocket")
        person.type(CTRL_D)
        assert await person.ended() == 0
        assert PASSWORD not in person.terminal.raw
    answer = (0, "From memory: your cat is called Momo.\n", "")
    assert await piped(tmp_path, "--url", stack.url, given="What is my cat called?\n") == answer
    async with talking(tmp_path, "--url", stack.url) as person:
        await person.shows("❯ What is my cat called?", "your cat is called Momo.", "●")


async def test_a_reply_goes_on_after_the_server_died_and_what_was_typed_meanwhile_is_sent(
    own_stack: RunningStack, own_server: ServerProcess, http: aiohttp.ClientSession, bob: ChatUser, tmp_path: Path
) -> None:
    gate = uuid.uuid4().hex
    options = ("--url", own_stack.url, "--email", bob.email)
    async with talking(tmp_path, *options, CHAT_PASSWORD=bob.password) as person:
        await person.enter("Type a message.", f"GATE {gate} 2 3")
        await person.shows("w0 w1")
        own_server.kill()
        await person.shows("○ offline, trying again")
        person.type("What is my name?\r")
        await person.shows("❯ What is my name?  (not sent yet")
        await own_server.restart()
        await own_stack.open_gate(http, gate)
        await person.shows("w0 w1 w2 w3 w4", "your name is Bob.")
        assert person.terminal.text().count("❯ What is my name?") == 1


async def test_a_reply_that_ended_while_there_was_no_connection_is_shown(
    own_stack: RunningStack, own_server: ServerProcess, http: aiohttp.ClientSession, bob: ChatUser, tmp_path: Path
) -> None:
    gate = uuid.uuid4().hex
    async with ChaosProxy(own_server.port) as proxy:
        options = ("--url", proxy.url, "--email", bob.email)
        async with talking(tmp_path, *options, CHAT_PASSWORD=bob.password) as person:
            await person.enter("Type a message.", f"GATE {gate} 2 3")
            await person.shows("w0 w1")
            turn_id = (await bob.get("/agent/status"))["turn"]["turn_id"]
            await proxy.refuse()
            own_server.kill()
            await own_stack.open_gate(http, gate)
            await own_server.restart()
            await bob.ended(turn_id)
            proxy.listen()
            await person.shows("w0 w1 w2 w3 w4", " tokens ·")


async def test_messages_of_another_device_appear(stack: RunningStack, ada: ChatUser, tmp_path: Path) -> None:
    async with talking(tmp_path, "--url", stack.url, "--email", ada.email, CHAT_PASSWORD=ada.password) as person:
        await person.shows("Nothing was said yet.")
        await ada.say("What is my name?")
        await person.shows("❯ What is my name? (another device)", "your name is Ada.")
