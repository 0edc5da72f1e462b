"""What operators do to users over HTTP: who may, what it does, and that each change is recorded."""

from decimal import Decimal
from typing import Any

import pytest

from server.api import router
from server.ports import Plan
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from tests.fakes.agent import MODEL_FAILED, Reply
from tests.unit.api.operators import admin, make_admin, recorded
from tests.unit.api.world import PASSWORD, World

USERS = "/api/v1/admin/users"
ADMIN_ROUTES = [(route.method, route.path) for route in router.ROUTES if route.path.startswith("/api/v1/admin/")]
NOBODY = "00000000-0000-4000-8000-000000000000"


def test_every_admin_endpoint_is_for_admins() -> None:
    assert ADMIN_ROUTES
    for route in router.ROUTES:
        assert (route.access == "admin") == route.path.startswith("/api/v1/admin/"), route.path


@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
async def test_others_are_refused(world: World, method: str, path: str) -> None:
    user, blocked = await world.user(), await admin(world)
    world.database.metadata[user.user_id] = {"role": "admin", "app_metadata": {"role": "admin"}}
    world.set_status(blocked.user_id, AgentStatus.BLOCKED)
    path = path.replace("{user_id}", user.user_id)
    for client, status, code in (
        (world.visitor, 401, "unauthorized"),
        (user, 403, "forbidden"),
        (blocked, 403, "account_blocked"),
    ):
        answer = await client.request(method, path)
        assert (answer.status, answer.code) == (status, code)
    assert world.database.actions == []


async def test_who_is_no_admin_any_more_is_refused_at_once(world: World) -> None:
    ann = await admin(world)
    assert (await ann.get(USERS)).status == 200
    make_admin(world, ann.user_id, False)
    assert (await ann.get(USERS)).code == "forbidden"


async def test_a_ticket_opens_no_admin_endpoint(world: World) -> None:
    ann = await admin(world)
    ticket = (await ann.post("/api/v1/chat/ticket")).json["ticket"]
    assert (await world.visitor.get(f"{USERS}?ticket={ticket}")).status in (400, 401)


async def test_users_are_found_by_id_address_and_status(world: World) -> None:
    ann, ben = await admin(world), await world.user()
    world.set_status(ben.user_id, AgentStatus.FAILED)
    for query, expected in (
        ({"query": ben.user_id}, [ben.user_id]),
        ({"query": world.database.users[ben.user_id][:6].upper()}, [ben.user_id]),
        ({"status": "failed"}, [ben.user_id]),
        ({"admins": "true"}, [ann.user_id]),
        ({"query": "nobody@"}, []),
    ):
        page = (await ann.get(USERS, params=query)).json
        assert [one["id"] for one in page["data"]] == expected
    assert (await ann.get(USERS, params={"status": "happy"})).code == "invalid_request"


async def test_pages_of_users_hold_each_once(world: World) -> None:
    ann = await admin(world)
    everybody = {ann.user_id} | {(await world.user(ready=False)).user_id for _ in range(4)}
    for user_id in everybody:
        world.database.profile(user_id)
    seen: list[str] = []
    page = (await ann.get(f"{USERS}?limit=2")).json
    while True:
        seen += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        page = (await ann.get(f"{USERS}?limit=2&after={page['next_cursor']}")).json
    assert (len(seen), set(seen)) == (5, everybody)


async def test_listed_users_have_what_they_spent(world: World) -> None:
    ann, ben = await admin(world), await world.user()
    await ben.say("hello")
    [listed] = (await ann.get(USERS, params={"query": ben.user_id})).json["data"]
    shown = (await ann.get(f"{USERS}/{ben.user_id}")).json
    assert (listed["budget"], listed["total"]) == (shown["budget"], shown["total"])
    assert listed["total"]["messages"] == 2


async def test_one_user_is_shown_with_plan_spending_and_errors_and_without_any_text(world: World) -> None:
    ann, ben = await admin(world), await world.user()
    await ben.say("My secret is 1234")
    world.gateway.plan(Reply(words=(), error=MODEL_FAILED))
    await ben.say("My secret is 5678")
    shown = await ann.get(f"{USERS}/{ben.user_id}")
    body = shown.json
    assert (body["id"], body["agent_status"], body["is_admin"]) == (ben.user_id, "active", False)
    assert (body["plan"], body["limits"]["budget"], body["limits"]["period"]) == ("default", "5", "30d")
    assert (body["total"]["messages"], body["open_turns"], body["connections"]) == (3, 0, 0)
    assert [error["code"] for error in body["errors"]] == ["model_error"]
    assert b"secret" not in shown.raw
    assert b"v1:" not in shown.raw


async def test_one_user_is_shown_also_while_the_model_gateway_is_unavailable(world: World) -> None:
    ann, ben = await admin(world), await world.user()

    async def refuse(_: str) -> None:
        raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    world.billing.before = refuse
    shown = await ann.get(f"{USERS}/{ben.user_id}")
    assert (shown.status, shown.json["limits"]) == (200, None)


async def test_unknown_users_are_not_found(world: World) -> None:
    ann = await admin(world)
    calls: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
        ("GET", "", None),
        ("PATCH", "/plan", {"name": "pro"}),
        ("PATCH", "/plan", {"budget": "1"}),
        ("POST", "/block", {}),
        ("POST", "/unblock", {}),
        ("POST", "/admin", {"is_admin": True}),
        ("POST", "/rotate-key", {}),
        ("POST", "/repair", {}),
        ("DELETE", "", None),
        ("GET", "/export", None),
    )
    for method, path, body in calls:
        answer = await ann.request(method, f"{USERS}/{NOBODY}{path}", json=body)
        assert (answer.status, answer.code) == (404, "not_found"), path


async def test_a_named_plan_reaches_the_model_gateway_and_the_next_message(world: World) -> None:
    ann, ben = await admin(world), await world.user()
    world.billing.customers[ben.user_id].spent = Decimal(7)
    answer = await ann.request("PATCH", f"{USERS}/{ben.user_id}/plan", json={"name": "pro"})
    assert answer.json == {
        "plan": "pro",
        "limits": {
            "budget": "50",
            "period": "30d",
            "tokens_per_minute": None,
            "requests_per_minute": None,
            "models": [],
        },
        "spent": "7",
        "resets_at": answer.json["resets_at"],
    }
    assert world.billing.customers[ben.user_id].plan == Plan(Decimal(50), "30d")
    assert world.database.billing[ben.user_id].limit == Decimal(50)
    assert recorded(world) == [("set_plan", ann.user_id, ben.user_id, "done")]


async def test_single_fields_of_a_plan_are_changed_and_null_removes_a_limit(world: World) -> None:
    ann, ben = await admin(world), await world.user()
    path = f"{USERS}/{ben.user_id}/plan"
    await ann.request("PATCH", path, json={"requests_per_minute": 60, "models": ["gpt-4", "mini"]})
    assert world.billing.customers[ben.user_id].plan == Plan(Decimal(5), "30d", None, 60, ("gpt-4", "mini"))
    answer = await ann.request("PATCH", path, json={"budget": None, "requests_per_minute": None, "models": None})
    assert (answer.json["plan"], answer.json["limits"]["budget"]) == (None, None)
    assert world.billing.customers[ben.user_id].plan == Plan(None, "30d")
    assert world.database.actions[-1].details == {"budget": None, "requests_per_minute": None, "models": []}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": None},
        {"name": "gold"},
        {"name": "pro", "budget": "1"},
        {"budget": "-1"},
        {"budget": "0.1234567890123456"},
        {"period": "1y"},
        {"tokens_per_minute": 0},
        {"models": ["mini"]},
    ],
)
async def test_a_plan_that_cannot_be_is_refused(world: World, body: dict[str, object]) -> None:
    ann, ben = await admin(world), await world.user()
    answer = await ann.request("PATCH", f"{USERS}/{ben.user_id}/plan", json=body)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert world.billing.customers[ben.user_id].plan == Plan(Decimal(5), "30d")


async def test_a_user_whose_agent_is_not_made_gets_the_plan_with_it(world: World) -> None:
    ann, ben = await admin(world), await world.user(ready=False)
    world.database.profile(ben.user_id)
    answer = await ann.request("PATCH", f"{USERS}/{ben.user_id}/plan", json={"name": "pro"})
    assert (answer.json["plan"], answer.json["spent"]) == ("pro", None)
    await world.provisioner.ready(ben.user_id)
    assert world.billing.customers[ben.user_id].plan == Plan(Decimal(50), "30d")


async def test_fields_of_a_plan_are_refused_before_there_is_a_customer_in_words_for_any_client(world: World) -> None:
    ann, ben = await admin(world), await world.user(ready=False)
    world.database.profile(ben.user_id)
    answer = await ann.request("PATCH", f"{USERS}/{ben.user_id}/plan", json={"budget": "1"})
    assert (answer.status, answer.code) == (404, "not_found")
    assert answer.json["detail"] == "This account is not complete yet. Repair it first."


async def test_a_blocked_user_is_refused_and_an_unblocked_one_goes_on(world: World) -> None:
    ann, ben = await admin(world), await world.user()
    assert (await ben.say("Hi")).status == 200
    answer = await ann.post(f"{USERS}/{ben.user_id}/block", {"reason": "Spam"})
    assert (answer.json["agent_status"], answer.json["status_reason"]) == ("blocked", "Spam")
    for refused in (await ben.say("Hi"), await ben.get("/api/v1/chat/history")):
        assert refused.code == "account_blocked"
    assert (await ann.post(f"{USERS}/{ben.user_id}/unblock")).json["agent_status"] == "active"
    assert (await ben.say("Hi again")).status == 200
    assert recorded(world) == [
        ("block", ann.user_id, ben.user_id, "done"),
        ("unblock", ann.user_id, ben.user_id, "done"),
    ]


async def test_the_last_admin_is_neither_blocked_nor_demoted(world: World) -> None:
    ann, ben = await admin(world), await world.user()
    for path, body in (("block", {}), ("admin", {"is_admin": False})):
        answer = await ann.post(f"{USERS}/{ann.user_id}/{path}", body)
        assert (answer.status, answer.code) == (409, "last_admin")
    await ann.post(f"{USERS}/{ben.user_id}/admin", {"is_admin": True})
    world.set_status(ben.user_id, AgentStatus.BLOCKED)
    assert (await ann.post(f"{USERS}/{ann.user_id}/admin", {"is_admin": False})).code == "last_admin"
    world.set_status(ben.user_id, AgentStatus.ACTIVE)
    assert (await ann.post(f"{USERS}/{ann.user_id}/admin", {"is_admin": False})).status == 204
    assert (await ann.get(USERS)).code == "forbidden"
    assert (await ben.get(USERS)).status == 200


async def test_a_key_is_rotated_and_an_account_repaired(world: World) -> None:
    ann, ben = await admin(world), await world.user()
    before = world.billing.key_of(ben.user_id)
    assert (await ann.post(f"{USERS}/{ben.user_id}/rotate-key", {"at_once": True})).status == 204
    assert world.billing.key_of(ben.user_id) != before
    assert (await ann.post(f"{USERS}/{ben.user_id}/repair")).json["agent_status"] == "active"
    assert recorded(world) == [
        ("rotate_key", ann.user_id, ben.user_id, "done"),
        ("repair", ann.user_id, ben.user_id, "done"),
    ]


async def test_a_user_is_deleted_with_everything_and_the_record_stays(world: World) -> None:
    ann, ben = await admin(world), await world.user()
    assert (await ben.say("Hi")).status == 200
    assert (await ann.request("DELETE", f"{USERS}/{ben.user_id}")).status == 204
    assert ben.user_id not in world.database.users
    assert ben.user_id not in world.billing.customers
    assert (await ann.get(f"{USERS}/{ben.user_id}")).code == "not_found"
    assert recorded(world) == [("delete", ann.user_id, ben.user_id, "done")]


async def test_the_last_admin_is_not_deleted(world: World) -> None:
    ann = await admin(world)
    assert (await ann.request("DELETE", f"{USERS}/{ann.user_id}")).code == "last_admin"
    assert recorded(world) == [("delete", ann.user_id, ann.user_id, "failed")]
    assert (await ann.get(USERS)).status == 200


async def test_a_users_data_is_exported_and_that_is_recorded(world: World) -> None:
    ann, ben = await admin(world), await world.user()
    await ben.say("Remember the milk")
    exported = await ann.get(f"{USERS}/{ben.user_id}/export")
    assert exported.json["complete"] is True
    assert b"Remember the milk" in exported.raw
    assert recorded(world) == [("export", ann.user_id, ben.user_id, "done")]


async def test_a_user_is_created_with_a_plan_and_can_sign_in(world: World) -> None:
    ann = await admin(world)
    answer = await ann.post(USERS, {"email": "new@example.com", "password": PASSWORD, "name": "New", "plan": "pro"})
    assert (answer.status, answer.json["email"], answer.json["name"]) == (201, "new@example.com", "New")
    assert answer.json["plan"] == "pro"
    user_id = answer.json["id"]
    await world.provisioner.ready(user_id)
    assert world.billing.customers[user_id].plan == Plan(Decimal(50), "30d")
    assert recorded(world) == [("create_user", ann.user_id, user_id, "done")]
    assert "example.com" not in str(world.database.actions)
    again = await ann.post(USERS, {"email": "new@example.com"})
    assert (again.status, again.code) == (400, "invalid_request")
    assert recorded(world)[-1] == ("create_user", ann.user_id, None, "failed")


async def test_an_action_that_fails_is_recorded_with_its_reason(world: World) -> None:
    ann, ben = await admin(world), await world.user()

    async def refuse(_: str) -> None:
        raise PlatformError(ErrorCode.LITELLM_UNAVAILABLE)

    world.billing.before = refuse
    answer = await ann.request("PATCH", f"{USERS}/{ben.user_id}/plan", json={"budget": "1"})
    assert answer.code == "litellm_unavailable"
    [action] = world.database.actions
    assert (action.outcome, action.reason) == (
        "failed",
        "litellm_unavailable: The model gateway is not reachable right now.",
    )


async def test_what_cannot_be_recorded_is_not_done(world: World) -> None:
    ann, ben = await admin(world), await world.user()

    async def refuse(operation: str) -> None:
        if operation == "begin":
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    world.database.before = refuse
    answer = await ann.request("PATCH", f"{USERS}/{ben.user_id}/plan", json={"budget": "1"})
    assert answer.code == "supabase_unavailable"
    assert world.billing.customers[ben.user_id].plan == Plan(Decimal(5), "30d")
