"""REST on the real services: documented formats, sign-in errors, forged tokens, hostile input, isolation of users."""

import base64
import json
import uuid
from decimal import Decimal
from typing import Any

import jwt
from pydantic import BaseModel

from server.api import schemas
from tests.stack.chat_client import ChatUser
from tests.stack.conftest import NewUser
from tests.stack.running_stack import RunningStack

SHAPES: dict[str, type[BaseModel]] = {
    "/auth/me": schemas.User,
    "/user/profile": schemas.Profile,
    "/user/usage": schemas.UserUsage,
    "/agent/status": schemas.Agent,
    "/agent/memory": schemas.AgentMemory,
    "/chat/history": schemas.History,
}


def _holds(model: type[BaseModel], answer: Any) -> None:
    model.model_validate_json(json.dumps(answer))


async def test_every_read_has_its_documented_shape(ada: ChatUser) -> None:
    turn = await ada.say("ECHO shape")
    _holds(schemas.Turn, turn)
    _holds(schemas.Turn, await ada.get(f"/chat/turns/{turn['id']}"))
    for path, model in SHAPES.items():
        _holds(model, await ada.get(path))
    status, ticket = await ada.call("POST", "/chat/ticket")
    assert status == 200
    _holds(schemas.Ticket, ticket)


async def test_tokens_are_exchanged_and_end_with_the_session(ada: ChatUser) -> None:
    login = {"email": ada.email, "password": ada.password}
    status, signed_in = await ada.call("POST", "/auth/login", login)
    assert status == 200
    _holds(schemas.SignedIn, signed_in)
    status, fresh = await ada.call("POST", "/auth/refresh", {"refresh_token": signed_in["refresh_token"]})
    assert (status, fresh["user"]["id"]) == (200, ada.id)
    ada.access_token = fresh["access_token"]
    assert await ada.call("POST", "/auth/logout") == (204, None)
    status, problem = await ada.call("POST", "/auth/refresh", {"refresh_token": fresh["refresh_token"]})
    assert (status, problem["code"]) == (401, "unauthorized")


async def test_refused_sign_ins_say_why(ada: ChatUser) -> None:
    for path, change, expected in (
        ("/auth/login", {"password": "not the password"}, (401, "unauthorized")),
        ("/auth/login", {"email": "nobody@example.com"}, (401, "unauthorized")),
        ("/auth/register", {"email": "new@example.com", "password": "123"}, (422, "weak_password")),
        ("/auth/register", {"email": "not-an-address@"}, (400, "invalid_request")),
    ):
        status, problem = await ada.call("POST", path, {"email": ada.email, "password": ada.password, **change})
        assert (status, problem["code"]) == expected, change
        _holds(schemas.Problem, problem)


def _unsigned(claims: dict[str, Any]) -> str:
    parts = (json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


async def test_a_token_with_a_foreign_signature_is_refused(stack: RunningStack, ada: ChatUser) -> None:
    claims = jwt.decode(ada.access_token, options={"verify_signature": False})
    forged = {
        "unsigned": _unsigned(claims),
        "another key": jwt.encode(claims, "a guessed secret of sufficient length", algorithm="HS256"),
        "a service's key": stack.env["SUPABASE_SERVICE_KEY"],
        "the public key": stack.env["SUPABASE_ANON_KEY"],
        "cut off": ada.access_token[:-4],
        "nonsense": "a.b.c",
    }
    for kind, token in forged.items():
        status, problem = await ada.call("GET", "/auth/me", Authorization=f"Bearer {token}")
        assert (status, problem["code"]) == (401, "unauthorized"), kind


HOSTILE = (
    "/chat/history?before=eq.1",
    "/chat/history?before=1)%20or%20(1.eq.1",
    "/chat/history?after=';drop%20table%20messages;--",
    "/chat/history?user_id=eq.00000000-0000-0000-0000-000000000000",
    "/chat/history?select=*",
    "/chat/history?limit=-1",
    "/chat/history?query=%00",
    "/chat/history?query=",
    "/chat/history?query=like.*&before=eq.1",
    "/user/usage?from=2024-01-01&to=gte.2024",
    "/user/usage?from=2024-13-01",
    "/agent/memory?before=..%2F..%2Fadmin",
    "/agent/memory?before=zzz",
    "/agent/memory?query=%00",
    "/agent/memory?limit=1000",
)


async def test_hostile_queries_are_refused_before_any_service_sees_them(ada: ChatUser) -> None:
    for path in HOSTILE:
        status, problem = await ada.call("GET", path)
        assert (status, problem["code"]) in ((400, "invalid_request"), (400, "invalid_cursor")), path


async def test_another_users_turn_and_an_unknown_turn_are_404(ada: ChatUser) -> None:
    for turn_id in ("eq.1", "neq.x&select=*", "00000000-0000-0000-0000-000000000000", "%00"):
        status, problem = await ada.call("GET", f"/chat/turns/{turn_id}")
        assert (status, problem["code"]) == (404, "not_found"), turn_id


async def test_a_search_accepts_any_text(ada: ChatUser) -> None:
    await ada.say("ECHO ready")
    for words in ("tea", "' or 1=1 --", "%25_%5C", "%F0%9F%99%82" * 200, "a" * 200, "te:*|!x", "*", "%C2%AD"):
        memory = await ada.get(f"/agent/memory?limit=5&query={words}")
        _holds(schemas.AgentMemory, memory)
        history = await ada.get(f"/chat/history?limit=5&query={words}")
        assert history["data"] == [], words
        _holds(schemas.History, history)


async def test_neither_user_can_read_stop_or_retry_anything_of_the_other(new_user: NewUser) -> None:
    ann, bob = await new_user("Ann"), await new_user("Bob")
    turn = await ann.say("ECHO a secret")
    assert (await bob.get("/chat/history"))["data"] == []
    assert (await bob.get("/user/usage"))["total"]["messages"] == 0
    for method, path, body in (
        ("GET", f"/chat/turns/{turn['id']}", None),
        ("POST", f"/chat/turns/{turn['id']}/retry", None),
        ("POST", "/chat/cancel", {"turn_id": turn["id"]}),
    ):
        status, problem = await bob.call(method, path, body)
        assert (status, problem["code"]) == (404, "not_found"), path
    status, block = await bob.ask("PATCH", "/agent/memory/human", {"value": "User's name: Bob."})
    assert (status, block["value"]) == (200, "User's name: Bob.")
    blocks = {block["label"]: block["value"] for block in (await ann.get("/agent/memory"))["blocks"]}
    assert "Bob" not in blocks["human"]


async def test_a_name_is_changed(ada: ChatUser) -> None:
    status, profile = await ada.call("PATCH", "/user/profile", {"name": "  Ada Лавлейс 🙂 "})
    assert (status, profile["name"]) == (200, "Ada Лавлейс 🙂")
    assert (await ada.get("/auth/me"))["name"] == "Ada Лавлейс 🙂"


async def test_an_unknown_block_and_a_value_that_is_too_long_are_refused(ada: ChatUser) -> None:
    await ada.say("ECHO ready")
    limit = (await ada.get("/agent/memory"))["blocks"][0]["limit"]
    for label, value, expected in (
        ("unknown", "x", (404, "not_found")),
        ("human", "x" * (limit + 1), (413, "too_large")),
    ):
        status, problem = await ada.call("PATCH", f"/agent/memory/{label}", {"value": value})
        assert (status, problem["code"]) == expected


async def test_history_pages_meet_without_gaps_or_repeats(ada: ChatUser) -> None:
    for number in range(3):
        await ada.say(f"ECHO Приветствую {number}")
    whole = (await ada.get("/chat/history"))["data"]
    paged, cursor = [], ""
    while True:
        page = await ada.get(f"/chat/history?limit=2{cursor}")
        paged += page["data"]
        if not page["has_more"]:
            break
        cursor = f"&before={page['next_cursor']}"
    assert paged == whole
    assert len(whole) == 6
    fourth_newest = cursor.removeprefix("&before=")
    newer = await ada.get(f"/chat/history?limit=1&after={fourth_newest}")
    assert newer["data"] == [whole[2]]
    [reply, message] = (await ada.get("/chat/history?query=привет 1"))["data"]
    assert [reply, message] == whole[2:4]
    newer = await ada.get(f"/chat/history?after={reply['cursor']}")
    older = await ada.get(f"/chat/history?before={message['cursor']}")
    assert [*newer["data"], reply, message, *older["data"]] == whole


async def test_usage_is_the_sum_of_the_turns(ada: ChatUser) -> None:
    turns = [await ada.say(f"ECHO {uuid.uuid4()}") for _ in range(3)]
    usage = await ada.get("/user/usage")
    cost = sum(Decimal(turn["message"]["cost"]) for turn in turns)
    assert usage["total"]["tokens"] == sum(turn["usage"]["total_tokens"] for turn in turns)
    assert Decimal(usage["total"]["cost"]).quantize(Decimal("0.000001")) == cost  # settled meanwhile, perhaps
    assert usage["total"] == {name: usage["range"][name] for name in ("messages", "tokens", "cost")}
    assert sum(day["messages"] for day in usage["days"]) == 6  # of two days, if it has just been midnight
    nothing = {"messages": 0, "tokens": 0, "cost": "0"}
    today = next((day for day in usage["days"] if day["date"] == usage["range"]["to"]), nothing)
    assert usage["today"] == {name: today[name] for name in nothing}
    assert usage["budget"] is None  # nothing limits the users of the local stack
