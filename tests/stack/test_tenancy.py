"""One user must never read, spend or stop anything of another: every interface is tried with the wrong user's token."""

import uuid
from typing import Any

import aiohttp
import httpx
import pytest

from tests.stack.chat_client import ChatUser
from tests.stack.conftest import NewUser
from tests.stack.running_stack import RunningStack

OWN_TABLES = ("user_profiles", "turns", "messages", "usage_metrics", "sessions", "tickets")


@pytest.fixture
async def eve(new_user: NewUser) -> ChatUser:
    """Another user, with a valid token of her own."""
    return await new_user("Eve")


async def postgrest(stack: RunningStack, user: ChatUser, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """A request to PostgREST that a user could make with supabase-js."""
    headers = {"apikey": stack.env["SUPABASE_ANON_KEY"], "Prefer": "return=representation", **user.headers}
    url = f"{stack.env['SUPABASE_URL']}/rest/v1/{path}"
    async with httpx.AsyncClient() as client:  # aiohttp refuses the doubled Content-Length that Supabase Lite sends
        response = await client.request(method, url, json=body, headers=headers)
        return response.status_code, response.json() if response.content else None


async def test_neither_turn_history_nor_usage_of_another_is_visible(ada: ChatUser, eve: ChatUser) -> None:
    turn = await ada.say("ECHO my secret")
    assert (await eve.call("GET", f"/chat/turns/{turn['id']}"))[0] == 404
    assert (await eve.call("POST", f"/chat/turns/{turn['id']}/retry"))[0] == 404
    assert (await eve.call("POST", "/chat/cancel", {"turn_id": turn["id"]}))[0] == 404
    assert (await eve.get("/chat/history"))["data"] == []
    assert (await eve.get("/user/usage"))["total"] == {"messages": 0, "tokens": 0, "cost": "0"}


async def test_another_users_running_turn_can_be_neither_read_nor_stopped(
    stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser, eve: ChatUser
) -> None:
    gate = uuid.uuid4().hex
    async with ada.connect() as hers, eve.connect() as others:
        ack = await hers.say(f"GATE {gate} 1 1")
        await stack.at_gate(http, gate)
        await others.send(type="cancel", id="by-id", turn_id=ack["turn_id"])
        assert (await others.answer_to("by-id"))["code"] == "not_found"
        await others.send(type="cancel", id="blind")
        assert (await others.answer_to("blind"))["code"] == "not_found"
        await others.send(type="retry", id="retry", turn_id=ack["turn_id"])
        assert (await others.answer_to("retry"))["code"] == "not_found"
        await stack.open_gate(http, gate)
        assert (await hers.end_of(ack["turn_id"]))["type"] == "turn.completed"
        assert not [frame for frame in others.frames if frame.get("turn_id") == ack["turn_id"]]


async def test_a_cursor_of_another_session_gives_no_events(ada: ChatUser, eve: ChatUser) -> None:
    async with ada.connect() as hers:
        ack = await hers.say("ECHO between us")
        end = await hers.end_of(ack["turn_id"])
    async with eve.connect(after=f"{end['epoch']}:0") as others:
        assert others.ready["resumed"] is False
        assert others.ready["turn"] is None
        await others.send(type="ping", id="p")
        await others.wait_for(lambda f: f["type"] == "pong")
        assert not [frame for frame in others.frames if "between us" in str(frame)]


async def test_postgrest_shows_a_user_only_their_own_rows_and_never_a_key(
    stack: RunningStack, ada: ChatUser, eve: ChatUser
) -> None:
    await ada.say("ECHO private")
    for table, column in (("messages", "user_id"), ("turns", "user_id"), ("usage_metrics", "user_id")):
        status, rows = await postgrest(stack, eve, "GET", f"{table}?select=id&{column}=eq.{ada.id}")
        assert (status, rows) == (200, []), table
    status, rows = await postgrest(stack, eve, "GET", f"user_profiles?select=id&id=eq.{ada.id}")
    assert (status, rows) == (200, [])
    status, _ = await postgrest(stack, ada, "GET", f"user_profiles?select=litellm_key&id=eq.{ada.id}")
    assert status in (401, 403)


async def test_postgrest_lets_no_user_write_or_call_what_is_the_servers(
    stack: RunningStack, ada: ChatUser, eve: ChatUser
) -> None:
    turn = await ada.say("ECHO untouched")
    forged = {"user_id": eve.id, "role": "user", "content": "x", "turn_id": turn["id"], "position": 99}
    assert (await postgrest(stack, eve, "POST", "messages", forged))[0] in (400, 401, 403)
    for table in OWN_TABLES:
        status, rows = await postgrest(stack, eve, "DELETE", f"{table}?{_key(table)}=eq.{ada.id}")
        assert status >= 400 or rows == [], table
    calls: dict[str, dict[str, Any]] = {
        "open_turns": {"p_user_id": ada.id},
        "get_turn": {"p_user_id": ada.id, "p_turn_id": turn["id"]},
        "request_cancel": {"p_user_id": ada.id, "p_turn_id": turn["id"]},
        "claim_session": {"p_user_id": ada.id, "p_owner": "eve"},
        "closed_accounts": {"p_user_ids": [ada.id]},
    }
    for function, arguments in calls.items():
        status, answer = await postgrest(stack, eve, "POST", f"rpc/{function}", arguments)
        assert status in (401, 403), (function, answer)
        assert answer["code"] == "42501", (function, answer)
    after = await ada.get(f"/chat/turns/{turn['id']}")
    assert {**after, "cost_status": turn["cost_status"]} == turn  # it may have been settled meanwhile


def _key(table: str) -> str:
    return {"user_profiles": "id", "tickets": "id"}.get(table, "user_id")


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
    async with httpx.AsyncClient() as client:
        return str((await client.get(url, headers=headers)).json()[0]["letta_member_id"])
