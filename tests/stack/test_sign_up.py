"""Sign-up: by registration, by two registrations at once, and directly at Supabase."""

import asyncio
import uuid
from typing import Any

import aiohttp
import httpx

from tests.stack.chat_client import TIMEOUT, ChatUser
from tests.stack.running_stack import RunningStack

PASSWORD = "Passw0rd-2026"


async def test_a_user_created_directly_at_supabase_can_chat(stack: RunningStack, http: aiohttp.ClientSession) -> None:
    email = f"{uuid.uuid4().hex[:12]}@example.com"
    async with httpx.AsyncClient(timeout=TIMEOUT) as supabase:
        answer = await supabase.post(
            f"{stack.env['SUPABASE_URL']}/auth/v1/signup",
            json={"email": email, "password": PASSWORD},
            headers={"apikey": stack.env["SUPABASE_ANON_KEY"]},
        )
    session = answer.json()
    user = ChatUser(
        http, stack.url, session["user"]["id"], email, PASSWORD, session["access_token"], session["refresh_token"]
    )
    async with user.connect() as device:
        ack = await device.say("ECHO hello from elsewhere")
        assert (await device.end_of(ack["turn_id"]))["turn"]["message"]["content"] == "hello from elsewhere"
    assert (await user.get("/auth/me"))["agent_status"] == "active"


async def test_two_registrations_of_one_address_at_once_make_one_user(
    stack: RunningStack, http: aiohttp.ClientSession
) -> None:
    credentials = {"email": f"{uuid.uuid4().hex[:12]}@example.com", "password": PASSWORD}

    async def register() -> tuple[int, Any]:
        async with http.post(f"{stack.url}/api/v1/auth/register", json=credentials) as response:
            return response.status, await response.json()

    answers = await asyncio.gather(*(register() for _ in range(4)))
    made = [body for status, body in answers if status == 201]
    assert sorted(status for status, _ in answers) == [201, 202, 202, 202]
    async with http.post(f"{stack.url}/api/v1/auth/login", json=credentials) as response:
        body = await response.json()
    assert (response.status, body["user"]["id"]) == (200, made[0]["user"]["id"])
