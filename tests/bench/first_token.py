"""Time to first token on the running stack: through the platform's WebSocket against calling Letta directly.

Needs the tests' stack to be up: `python -m tests.bench first-token` starts nothing itself.
"""

import asyncio
import json
import os
import statistics
import time
import uuid
from pathlib import Path

import aiohttp
import httpx

from tests.stack.chat_client import ChatUser, Device, register
from tests.stack.running_stack import RunningStack, read_env


def _running_stack() -> RunningStack:
    folder = Path(os.environ.get("CHAT_TEST_DIR", ".chat-test")).absolute()
    ports = json.loads((folder / "ports.json").read_text())
    return RunningStack(
        folder / "stack",
        f"http://127.0.0.1:{ports['api']}",
        f"http://127.0.0.1:{ports['model']}",
        read_env(folder / "stack" / "stack.env"),
    )


async def _through_us(device: Device) -> float:
    began = time.perf_counter()
    message_id = str(uuid.uuid4())
    await device.send(type="message", client_message_id=message_id, content="ECHO one two three")
    await device.wait_for(lambda f: f["type"] == "turn.started" and f["client_message_id"] == message_id)
    turn_id = (await device.answer_to(message_id))["turn_id"]
    await device.wait_for(lambda f: f["type"] == "message.delta" and f["turn_id"] == turn_id)
    first = time.perf_counter() - began
    await device.end_of(turn_id)
    return first


async def _directly(http: aiohttp.ClientSession, stack: RunningStack, member: str, conversation: str) -> float:
    headers = {"Authorization": f"Bearer {stack.env['LETTA_API_TOKEN']}", "user_id": member}
    body = {
        "messages": [{"role": "user", "content": "ECHO one two three"}],
        "streaming": True,
        "stream_tokens": True,
        "background": False,
    }
    url = f"{stack.env['LETTA_BASE_URL']}/v1/conversations/{conversation}/messages"
    began, first = time.perf_counter(), 0.0
    async with http.post(url, json=body, headers=headers) as response:
        async for line in response.content:
            if not first and b'"assistant_message"' in line:
                first = time.perf_counter() - began
    return first


async def _agent_of(stack: RunningStack, user: ChatUser) -> tuple[str, str]:
    url = f"{stack.env['SUPABASE_URL']}/rest/v1/user_profiles"
    query = {"select": "letta_member_id,letta_conversation_id", "id": f"eq.{user.id}"}
    async with httpx.AsyncClient() as client:
        answer = await client.get(url, params=query, headers={"apikey": stack.env["SUPABASE_SERVICE_KEY"]})
    row = answer.json()[0]
    return row["letta_member_id"], row["letta_conversation_id"]


async def _measure(rounds: int) -> dict[str, list[float]]:
    stack = _running_stack()
    figures: dict[str, list[float]] = {"Letta directly": [], "through us": []}
    async with aiohttp.ClientSession() as http:
        ours, other = await register(http, stack.url, "Ours"), await register(http, stack.url, "Direct")
        for user in (ours, other):
            await user.say("ECHO warm")
        member, conversation = await _agent_of(stack, other)
        async with ours.connect() as device:
            for _ in range(rounds):
                figures["Letta directly"].append(await _directly(http, stack, member, conversation))
                figures["through us"].append(await _through_us(device))
    return figures


def main(rounds: int) -> None:
    """Print the medians and their difference."""
    figures = asyncio.run(_measure(rounds))
    for name, seconds in figures.items():
        spread = f"{min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f}"
        print(f"{name:>15}: median {statistics.median(seconds) * 1000:.0f} ms ({spread})")
    direct, ours = (statistics.median(values) for values in figures.values())
    print(f"added by the platform: {(ours - direct) * 1000:.0f} ms, ratio {ours / direct:.2f}")
