"""Time to first token on the running stack: through the platform's WebSocket against calling Letta directly.

Needs the tests' stack to be up: `python -m tests.bench first-token` starts no service of it itself. Two servers of its
own around the stack's Redis show a cold session and a follower.
"""

import asyncio
import statistics
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import aiohttp
import httpx

from tests.bench.own_platform import own_platform, users_with_agents
from tests.bench.stack import running_stack
from tests.bench.table import Row, ratio, times
from tests.stack.chat_client import ChatUser, Device, register
from tests.stack.running_stack import RunningStack

AIM: Final = 1.03
MESSAGE: Final = "ECHO one two three"
USERS: Final = 8
"""Whose sessions are cold once each."""


async def _through_us(device: Device) -> float:
    began, message_id = time.perf_counter(), str(uuid.uuid4())
    await device.send(type="message", client_message_id=message_id, content=MESSAGE)
    return await _first_token(device, message_id, began)


async def _through_another(device: Device, sender: ChatUser) -> float:
    """Seconds until the first token at a device of one instance, for a message that another one accepts."""
    began, message_id = time.perf_counter(), str(uuid.uuid4())
    body = {"content": MESSAGE, "client_message_id": message_id}
    sending = asyncio.create_task(sender.call("POST", "/chat/message", body, Prefer="respond-async"))
    first = await _first_token(device, message_id, began)
    status, answer = await sending
    assert status == 202, answer
    return first


async def _first_token(device: Device, message_id: str, began: float) -> float:
    """Seconds from `began` until the first token of this message's reply. Returns when the turn has ended."""
    started = await device.wait_for(lambda f: f["type"] == "turn.started" and f["client_message_id"] == message_id)
    turn_id = started["turn_id"]
    await device.wait_for(lambda f: f["type"] == "message.delta" and f["turn_id"] == turn_id)
    first = time.perf_counter() - began
    await device.end_of(turn_id)
    return first


async def _directly(http: aiohttp.ClientSession, stack: RunningStack, member: str, conversation: str) -> float:
    headers = {"Authorization": f"Bearer {stack.env['LETTA_API_TOKEN']}", "user_id": member}
    body = {
        "messages": [{"role": "user", "content": MESSAGE}],
        "streaming": True,
        "stream_tokens": True,
        "background": False,
    }
    url = f"{stack.env['LETTA_BASE_URL']}/v1/conversations/{conversation}/messages"
    began, first = time.perf_counter(), 0.0
    async with http.post(url, json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if not first and b'"assistant_message"' in line:
                first = time.perf_counter() - began
    assert first, "Letta's reply has no text"
    return first


async def _agent_of(env: Mapping[str, str], user: ChatUser) -> tuple[str, str]:
    url = f"{env['SUPABASE_URL']}/rest/v1/user_profiles"
    query = {"select": "letta_member_id,letta_conversation_id", "id": f"eq.{user.id}"}
    async with httpx.AsyncClient() as client:
        answer = await client.get(url, params=query, headers={"apikey": env["SUPABASE_SERVICE_KEY"]})
    row = answer.json()[0]
    return row["letta_member_id"], row["letta_conversation_id"]


async def _measure(rounds: int) -> dict[str, list[float]]:
    stack = running_stack()
    figures: dict[str, list[float]] = {"Letta directly": [], "through us": []}
    async with aiohttp.ClientSession() as http:
        ours, other = await register(http, stack.url, "Ours"), await register(http, stack.url, "Direct")
        for user in (ours, other):
            await user.say("ECHO warm")
        member, conversation = await _agent_of(stack.env, other)
        async with ours.connect() as device:
            for _ in range(rounds):
                figures["Letta directly"].append(await _directly(http, stack, member, conversation))
                figures["through us"].append(await _through_us(device))
    return figures


async def _on_two_instances(users: int) -> dict[str, list[float]]:
    """Each user's session is cold at the second instance once: it has never seen the user before."""
    figures: dict[str, list[float]] = {"Letta directly": [], "second message": [], "cold session": [], "follower": []}
    async with own_platform() as platform:
        with platform.servers("first", "second") as (first, second):
            await asyncio.gather(first.ready(), second.ready())
            for user in await users_with_agents(platform, first, users):
                member, conversation = await _agent_of(platform.env, user)
                elsewhere = replace(user, url=second.url)
                async with user.connect() as device:
                    await _through_us(device)
                    directly = await _directly(platform.http, platform.stack, member, conversation)
                    figures["Letta directly"].append(directly)
                    figures["second message"].append(await _through_us(device))
                async with elsewhere.connect() as device:
                    figures["cold session"].append(await _through_us(device))
                async with user.connect() as device:
                    figures["follower"].append(await _through_another(device, elsewhere))
    return figures


def main(rounds: int) -> list[Row]:
    """Print the medians and their difference."""
    figures = asyncio.run(_measure(rounds))
    _print(figures)
    direct, ours = (statistics.median(values) for values in figures.values())
    print(f"added by the platform: {(ours - direct) * 1000:.0f} ms, ratio {times(ours, direct):.2f}")
    rows = [ratio("Time to first token against Letta directly", ours * 1000, direct * 1000, AIM, "ms")]
    print("on two instances around one Redis:")
    others = asyncio.run(_on_two_instances(min(rounds, USERS)))
    _print(others)
    base = statistics.median(others.pop("Letta directly"))
    for name, seconds in others.items():
        took = statistics.median(seconds)
        measured = f"{times(took, base):.2f} times ({took * 1000:.0f} ms against {base * 1000:.0f} ms)"
        rows.append(Row(f"First token, two instances: {name}", measured))
    return rows


def _print(figures: Mapping[str, list[float]]) -> None:
    for name, seconds in figures.items():
        spread = f"{min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f}"
        print(f"{name:>15}: median {statistics.median(seconds) * 1000:.0f} ms ({spread})", flush=True)
