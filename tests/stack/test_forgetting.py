"""What users may do with their data, on the real services: export it, edit the archival memory, delete the history."""

import json
import uuid
from decimal import Decimal
from typing import Any

import aiohttp
import jwt
import psycopg

from server.ports.export import PARTS
from tests.stack.chat_client import ChatUser
from tests.stack.commands import chat_users
from tests.stack.conftest import NewUser
from tests.stack.needles import tables_with
from tests.stack.running_stack import RunningStack

NOT_EXPORTED = {
    "sessions": "how instances coordinate",
    "model_keys": "hashes of keys",
    "admin_actions": "the operators' record, which names operators",
    "admin_outcomes": "the operators' record",
}
"""Tables with a user's rows that are no part of the export, and what they have."""


async def remembers(user: ChatUser, text: str) -> None:
    await user.say(f"CALL archival_memory_insert {json.dumps({'content': text})}")


async def test_an_export_has_everything_of_one_user(stack: RunningStack, new_user: NewUser) -> None:
    words = [f"zebra{uuid.uuid4().hex[:12]}" for _ in range(2)]
    ada, bob = await new_user("Ada"), await new_user("Bob")
    status, _ = await ada.call("POST", "/user/api-keys", {"name": "my script", "scopes": ["read"]})
    assert status == 201
    for user, word in zip((ada, bob), words, strict=True):
        await user.say(f"ECHO {word}")
        await remembers(user, f"{word} has a cat")
    async with ada.http.get(f"{stack.url}/api/v1/user/export", headers=ada.headers) as response:
        assert response.status == 200
        text = await response.text()
    exported = json.loads(text)
    assert exported["complete"] is True
    assert set(PARTS) <= set(exported)
    assert words[0] in text
    assert words[1] not in text
    assert bob.id not in text
    assert exported["account"]["email"] == ada.email
    assert [one["text"] for one in exported["memory"]["passages"]] == [f"{words[0]} has a cat"]
    assert words[0] in json.dumps(exported["agent_file"]), "the agent's own file has the conversation"
    history = (await ada.get("/chat/history"))["data"]
    assert [one["id"] for one in exported["messages"]] == [one["id"] for one in reversed(history)]
    assert {turn["status"] for turn in exported["turns"]} == {"completed"}
    assert sum(Decimal(row["cost"]) for row in exported["ledger"] if row["counted"]) > 0
    [sign_in] = exported["sign_ins"]
    assert sign_in["device"]["address"] == "127.0.0.1"
    assert sign_in["device"]["user_agent"]
    assert [(key["name"], key["scopes"]) for key in exported["api_keys"]] == [("my script", ["read"])]
    assert not [key for key in ("litellm_key", "key_hash", "secret_hash", "content_hash") if f'"{key}"' in text]


def test_every_table_with_rows_of_users_is_exported(supabase_env: dict[str, str]) -> None:
    with psycopg.connect(supabase_env["SUPABASE_DB_URL"]) as connection:
        tables = {
            name
            for (name,) in connection.execute(
                "select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid"
                " where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attname = 'user_id'"
            )
        }
        [(exported,)] = connection.execute(
            "select string_agg(private.exported_part(part), ' ') from unnest(%s::text[]) part", [list(PARTS)]
        ).fetchall()
    missing = {name for name in tables if f"public.{name} " not in exported} - set(NOT_EXPORTED)
    assert not missing, f"add them to private.exported_part, or say in NOT_EXPORTED why not: {missing}"


async def test_passages_are_edited_as_the_agent_sees_them(new_user: NewUser) -> None:
    user = await new_user("Ada")
    status, added = await user.ask("POST", "/agent/memory/archival", {"text": "likes tea"})
    assert status == 201
    status, replaced = await user.call("PATCH", f"/agent/memory/archival/{added['id']}", {"text": "likes coffee"})
    assert (status, replaced["text"], replaced["created_at"]) == (200, "likes coffee", added["created_at"])
    assert [one["text"] for one in (await user.get("/agent/memory/archival"))["data"]] == ["likes coffee"]
    assert (await user.call("DELETE", f"/agent/memory/archival/{replaced['id']}"))[0] == 204
    assert (await user.get("/agent/memory/archival"))["data"] == []
    assert (await user.call("DELETE", f"/agent/memory/archival/{replaced['id']}"))[0] == 404


async def test_a_deleted_history_is_forgotten_and_the_memory_is_kept(
    stack: RunningStack, http: aiohttp.ClientSession, new_user: NewUser
) -> None:
    word = f"zebra{uuid.uuid4().hex[:12]}"
    user = await new_user("Ada")
    assert (await user.ask("POST", "/agent/memory/archival", {"text": "has a cat"}))[0] == 201
    await user.say(f"ECHO {word} is a secret")
    assert (await user.send(f"ERR 400 {word}"))[1]["code"] == "model_error"
    spent = (await user.get("/user/usage"))["total"]["messages"]
    async with user.connect() as device:
        assert (await user.call("DELETE", "/chat/history"))[0] == 204
        event = await device.wait_for(lambda frame: frame["type"] == "history.deleted")
        assert event["seq"]
        turn = await user.say(f"ECHO hello {word[-4:]}")
        await device.end_of(turn["id"])
    assert [one["turn_id"] for one in (await user.get("/chat/history"))["data"]] == [turn["id"]] * 2
    assert [one["text"] for one in (await user.get("/agent/memory/archival"))["data"]] == ["has a cat"]
    assert (await user.get("/user/usage"))["total"]["messages"] == spent + 2
    (asked,) = await stack.model_log(http, f"ECHO hello {word[-4:]}")
    assert word not in json.dumps(asked), "the model is not told of it"
    found = await tables_with(stack.env, [word])
    assert set(found) <= {"letta.public.messages"}
    await chat_users(stack, "purge")
    assert await tables_with(stack.env, [word]) == {}
    assert (await user.say("ECHO still here"))["status"] == "completed"


async def test_a_history_is_not_deleted_while_a_reply_runs(
    stack: RunningStack, http: aiohttp.ClientSession, new_user: NewUser
) -> None:
    user, gate = await new_user("Ada"), f"gate-{uuid.uuid4().hex}"
    async with user.connect() as device:
        ack = await device.say(f"GATE {gate} 1 3")
        await device.wait_for(lambda frame: frame["type"] == "message.delta")
        status, problem = await user.call("DELETE", "/chat/history")
        assert (status, problem["code"]) == (409, "busy")
        await stack.open_gate(http, gate)
        await device.end_of(ack["turn_id"])
    assert len((await user.get("/chat/history"))["data"]) == 2


async def test_a_refreshed_token_keeps_the_time_of_the_sign_in(new_user: NewUser) -> None:
    user = await new_user("Ada")
    status, first = await user.call("POST", "/auth/login", {"email": user.email, "password": user.password})
    assert status == 200
    refreshed = first
    for _ in range(2):
        status, refreshed = await user.call("POST", "/auth/refresh", {"refresh_token": refreshed["refresh_token"]})
        assert status == 200
    assert _claims(refreshed["access_token"])["amr"] == _claims(first["access_token"])["amr"]
    assert _claims(first["access_token"])["amr"][0]["method"] == "password"


def _claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims
