"""A browser's EventSource, which cannot send headers and reconnects automatically with the same URL."""

import uuid

import aiohttp
import pytest
from playwright.async_api import Page

from tests.stack.chat_client import ChatUser
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import RunningStack

OPEN = """async ([api, token]) => {
  const asked = await fetch(`${api}/chat/ticket`, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  const { ticket } = await asked.json();
  window.seen = [];
  window.source = new EventSource(`${api}/chat/events?ticket=${ticket}`);
  for (const type of ["ready", "turn.started", "message.delta", "turn.completed"])
    source.addEventListener(type, event => seen.push(JSON.parse(event.data)));
}"""
TIMES_READY = "times => seen.filter(event => event.type === 'ready').length >= times"
SAID = "words => seen.map(event => event.text ?? '').join('').trim().split(/\\s+/).length >= words"
ENDED = "id => seen.some(event => event.type === 'turn.completed' && event.turn_id === id)"
REPLY = "id => seen.find(event => event.type === 'turn.completed' && event.turn_id === id).turn.message.content"
GIVEN_UP = "() => source.readyState === EventSource.CLOSED"
TIMEOUT = 240_000.0
"""Milliseconds: the server is restarted meanwhile, and the browser retries every few seconds."""


@pytest.fixture
def gate() -> str:
    """A gate of the scripted model that no other test uses."""
    return uuid.uuid4().hex


async def crash_and_restart(server: ServerProcess) -> None:
    server.kill()
    await server.restart()


async def test_an_event_source_with_a_ticket_survives_every_reconnect_until_its_user_signs_out(
    own_stack: RunningStack,
    own_server: ServerProcess,
    http: aiohttp.ClientSession,
    bob: ChatUser,
    gate: str,
    page: Page,
    web_app: str,
) -> None:
    await page.goto(web_app)
    await page.evaluate(OPEN, [f"{own_stack.url}/api/v1", bob.access_token])
    await page.wait_for_function(TIMES_READY, arg=1, timeout=TIMEOUT)

    await crash_and_restart(own_server)  # when nothing but `ready` had arrived
    await page.wait_for_function(TIMES_READY, arg=2, timeout=TIMEOUT)
    async with bob.connect() as device:
        turn_id = (await device.say(f"GATE {gate} 2 3"))["turn_id"]
        await page.wait_for_function(SAID, arg=2, timeout=TIMEOUT)

    await crash_and_restart(own_server)  # in mid-reply, and in an epoch that began after the ticket was spent
    await page.wait_for_function(TIMES_READY, arg=3, timeout=TIMEOUT)
    await own_stack.open_gate(http, gate)
    await page.wait_for_function(ENDED, arg=turn_id, timeout=TIMEOUT)
    assert await page.evaluate(REPLY, turn_id) == "w0 w1 w2 w3 w4"

    assert (await bob.call("POST", "/auth/logout", {"scope": "local"}))[0] == 204
    await crash_and_restart(own_server)
    await page.wait_for_function(GIVEN_UP, timeout=TIMEOUT)
    assert await page.evaluate("() => seen.filter(event => event.type === 'ready').length") == 3
