"""An operator's day on the real platform, by HTTP and by `chat users`."""

import asyncio
import csv
import io
import uuid

import aiohttp
import pytest

from tests.stack.chat_client import TIMEOUT, ChatUser
from tests.stack.commands import chat_users, chat_users_fails
from tests.stack.conftest import NewUser
from tests.stack.patches import warned_about
from tests.stack.running_stack import RunningStack


@pytest.fixture
async def root(stack: RunningStack, new_user: NewUser) -> ChatUser:
    """An admin, made by a command."""
    user = await new_user("Root")
    await chat_users(stack, "admin", user.id, "on")
    return user


@pytest.fixture
def gate() -> str:
    """A gate of the scripted model that no other test uses."""
    return uuid.uuid4().hex


async def test_a_day_of_an_operator_over_http(root: ChatUser, ada: ChatUser, gate: str, stack: RunningStack) -> None:
    await ada.say("ECHO hello")
    found = await root.get(f"/admin/users?query={ada.email[:10]}")
    assert [(one["id"], one["email"], one["plan"]) for one in found["data"]] == [(ada.id, ada.email, "default")]

    status, plan = await root.call("PATCH", f"/admin/users/{ada.id}/plan", {"budget": "0.000001", "period": "30d"})
    assert (status, plan["limits"]["budget"], plan["plan"]) == (200, "0.000001", None)
    status, unsent = await ada.send("ECHO beyond")
    assert (status, unsent["code"]) == (402, "budget_exceeded")
    await root.call("PATCH", f"/admin/users/{ada.id}/plan", {"name": "default"})
    await ada.say("ECHO within again")

    async with ada.connect() as device:
        ack = await device.say(f"GATE {gate} 1 1")
        await device.wait_for(lambda frame: frame["type"] == "message.delta")
        status, blocked = await root.call("POST", f"/admin/users/{ada.id}/block", {"reason": "Spam"})
        assert (status, blocked["agent_status"]) == (200, "blocked")
        async with asyncio.timeout(TIMEOUT):
            while not device.socket.closed:
                await asyncio.sleep(0.05)
        assert device.socket.close_code == 4503
    assert (await ada.call("GET", "/chat/history"))[1]["code"] == "account_blocked"
    async with asyncio.timeout(TIMEOUT):
        while (await root.get(f"/admin/users/{ada.id}"))["open_turns"]:
            await asyncio.sleep(0.1)
    await stack.open_gate(ada.http, gate)
    await root.call("POST", f"/admin/users/{ada.id}/unblock")
    assert (await ada.get(f"/chat/turns/{ack['turn_id']}"))["status"] == "cancelled"
    await ada.say("ECHO back again")

    assert (await root.call("POST", f"/admin/users/{ada.id}/rotate-key", {"at_once": True}))[0] == 204
    assert (await root.call("POST", f"/admin/users/{ada.id}/repair"))[1]["agent_status"] == "active"
    await ada.say("ECHO with a new key")
    shown = await root.get(f"/admin/users/{ada.id}")
    assert (shown["open_turns"], shown["limits"]["budget"], shown["budget"]) == (0, None, shown["budget"])
    assert "budget_exceeded" in [error["code"] for error in shown["errors"]]

    usage = await root.get("/admin/usage")
    assert usage["range"]["messages"] >= 8
    audit = await root.get(f"/admin/audit?user_id={ada.id}")
    actions = ["repair", "rotate_key", "unblock", "block", "set_plan", "change_plan"]
    assert [(one["action"], one["actor_id"], one["outcome"]) for one in audit["data"]] == [
        (action, root.id, "done") for action in actions
    ]


async def test_an_operator_reads_what_the_doctor_finds_and_no_key(root: ChatUser, stack: RunningStack) -> None:
    for _ in range(10):  # a busy service may not answer in time, and what was found is shown for 15 s
        health = await root.get("/admin/health")
        wrong = {f"{one['service']} {one['name']}": one["message"] for one in health["checks"] if one["level"] != "ok"}
        if wrong.keys() == warned_about() and health["instance"]["status"] == "ready":
            break
        await asyncio.sleep(5)
    assert wrong.keys() == warned_about(), wrong
    assert health["instance"]["status"] == "ready"
    assert {check["service"] for check in health["checks"]} == {"settings", "supabase", "litellm", "letta"}
    text = str(health)
    keys = [value for name, value in stack.env.items() if name.endswith(("_KEY", "_TOKEN"))]
    assert len(keys) == 5
    assert not any(secret in text for secret in (*keys, stack.env["SUPABASE_DB_URL"]))


async def test_a_user_made_by_an_operator_talks_and_is_deleted_by_one(
    root: ChatUser, stack: RunningStack, http: aiohttp.ClientSession
) -> None:
    email, password = f"{uuid.uuid4().hex[:12]}@example.com", "Passw0rd-2026"
    status, made = await root.call("POST", "/admin/users", {"email": email, "password": password, "name": "New"})
    assert (status, made["email"], made["name"]) == (201, email, "New")
    async with http.post(f"{stack.url}/api/v1/auth/login", json={"email": email, "password": password}) as answer:
        body = await answer.json()
        assert answer.status == 200, body
    user = ChatUser(http, stack.url, made["id"], email, password, body["access_token"], body["refresh_token"])
    await user.say("ECHO hello")
    status, again = await root.call("POST", "/admin/users", {"email": email, "password": password})
    assert (status, again["code"]) == (400, "invalid_request")

    exported = await root.get(f"/admin/users/{user.id}/export")
    assert (exported["complete"], "ECHO hello" in str(exported["messages"])) == (True, True)
    assert (await root.call("DELETE", f"/admin/users/{user.id}"))[0] in (202, 204)
    async with asyncio.timeout(TIMEOUT):
        while (await root.call("GET", f"/admin/users/{user.id}"))[0] != 404:
            await asyncio.sleep(0.5)
    assert (await user.call("GET", "/auth/me"))[0] in (401, 403)
    audit = (await root.get(f"/admin/audit?user_id={user.id}"))["data"]
    assert [(one["action"], one["outcome"]) for one in audit] == [
        *(("delete", "done"), ("export", "done"), ("create_user", "done"))
    ]


async def test_the_same_day_by_commands(stack: RunningStack, root: ChatUser, ada: ChatUser) -> None:
    await ada.say("ECHO hello")
    [listed] = await chat_users(stack, "list", "--search", ada.email)
    assert listed.split()[:3] == [ada.id, "active", ada.email]
    assert (await chat_users(stack, "set-plan", ada.id, "default"))[-1].split() == ["plan", "default"]
    assert "There is no plan gold" in await chat_users_fails(stack, "set-plan", ada.id, "gold")
    shown = "\n".join(await chat_users(stack, "show", ada.id))
    assert ada.email in shown
    assert "ECHO" not in shown
    await chat_users(stack, "block", ada.id, "--reason", "Spam")
    async with asyncio.timeout(TIMEOUT):
        while (await ada.call("GET", "/chat/history"))[0] != 403:
            await asyncio.sleep(0.5)
    assert await chat_users(stack, "unblock", ada.id) == [f"{ada.id} is active."]
    await ada.say("ECHO back again")
    [new_id] = await chat_users(stack, "create", f"{uuid.uuid4().hex[:12]}@example.com", "--name", "New")
    assert (await root.get(f"/admin/users/{new_id}"))["name"] == "New"
    rows = list(csv.DictReader(io.StringIO("\n".join(await chat_users(stack, "usage")))))
    assert {"gpt-4"} <= {row["model"] for row in rows}
    lines = [line.split() for line in await chat_users(stack, "audit", ada.id)]
    assert [line[2] for line in lines] == ["unblock", "block", "set_plan"]
    assert all("@" in line[5] for line in lines)  # user@host


async def test_who_is_no_admin_any_more_is_out_at_once(stack: RunningStack, root: ChatUser, new_user: NewUser) -> None:
    other = await new_user("Other")
    await root.call("POST", f"/admin/users/{other.id}/admin", {"is_admin": True})
    assert (await other.call("GET", "/admin/users"))[0] == 200
    await chat_users(stack, "admin", other.id, "off")
    assert (await other.call("GET", "/admin/users"))[1]["code"] == "forbidden"
