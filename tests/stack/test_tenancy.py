"""Letta keeps the agents of users apart. What the platform itself serves is in `test_isolation.py`."""

import aiohttp
import httpx
import pytest

from tests.stack.chat_client import TIMEOUT, ChatUser
from tests.stack.conftest import NewUser
from tests.stack.running_stack import RunningStack


@pytest.fixture
async def eve(new_user: NewUser) -> ChatUser:
    """Another user, with a valid token of her own."""
    return await new_user("Eve")


async def test_letta_keeps_each_users_agent_to_its_own_member(
    stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser, eve: ChatUser
) -> None:
    """Even with Letta's password, requests as one user's member do not reach the other's agent."""
    await ada.say("ECHO hers")
    await eve.say("ECHO others")
    hers = (await ada.get("/user/profile"))["agent_id"]
    member = await _letta_member(stack, eve)
    headers = {"Authorization": f"Bearer {stack.env['LETTA_API_TOKEN']}", "user_id": member}
    async with http.get(f"{stack.env['LETTA_BASE_URL']}/v1/agents/{hers}", headers=headers) as response:
        assert response.status == 404
    async with http.get(f"{stack.env['LETTA_BASE_URL']}/v1/agents/") as response:
        assert response.status == 401


async def _letta_member(stack: RunningStack, user: ChatUser) -> str:
    headers = {"apikey": stack.env["SUPABASE_SERVICE_KEY"]}
    url = f"{stack.env['SUPABASE_URL']}/rest/v1/user_profiles?select=letta_member_id&id=eq.{user.id}"
    async with httpx.AsyncClient(timeout=TIMEOUT) as client:
        return str((await client.get(url, headers=headers)).json()[0]["letta_member_id"])
