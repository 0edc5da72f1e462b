"""What operators read over HTTP: the record of their actions, usage of all, plans, health."""

from server.ports import Diagnosis, Finding
from tests.unit.api.operators import admin
from tests.unit.api.world import World

USERS = "/api/v1/admin/users"


async def test_the_record_is_read_in_pages_and_by_user(world: World) -> None:
    ann, ben, cy = await admin(world), await world.user(), await world.user()
    for user in (ben, cy, ben):
        await ann.post(f"{USERS}/{user.user_id}/unblock")
    first = (await ann.get("/api/v1/admin/audit?limit=2")).json
    second = (await ann.get(f"/api/v1/admin/audit?limit=2&before={first['next_cursor']}")).json
    assert [one["user_id"] for one in first["data"] + second["data"]] == [ben.user_id, cy.user_id, ben.user_id]
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert first["data"][0] | {"id": 3, "at": "", "ended_at": ""} == {
        "id": 3,
        "at": "",
        "actor_id": ann.user_id,
        "actor_email": world.database.users[ann.user_id],
        "source": "127.0.0.1",
        "action": "unblock",
        "user_id": ben.user_id,
        "user_email": world.database.users[ben.user_id],
        "details": {},
        "outcome": "done",
        "reason": None,
        "ended_at": "",
    }
    only = (await ann.get(f"/api/v1/admin/audit?user_id={cy.user_id}")).json["data"]
    assert [one["user_id"] for one in only] == [cy.user_id]


async def test_usage_is_summed_over_all_users_as_json_and_csv(world: World) -> None:
    ann, ben = await admin(world), await world.user()
    for user in (ann, ben, ben):
        await user.say("Hi")
    usage = (await ann.get("/api/v1/admin/usage")).json
    [day] = usage["days"]
    assert (usage["range"]["messages"], day["users"], day["messages"]) == (6, 2, 6)
    [model] = usage["models"]
    assert (model["model"], model["cost"], day["models"]) == ("gpt-4", usage["range"]["cost"], [model])
    table = await ann.get("/api/v1/admin/usage", headers={"Accept": "text/csv"})
    assert table.headers["Content-Type"].startswith("text/csv")
    assert len(table.raw.splitlines()) == 2
    assert (await ann.get("/api/v1/admin/usage?from=2026-02-01&to=2026-01-01")).code == "invalid_request"


async def test_the_named_plans_are_listed(world: World) -> None:
    listed = (await (await admin(world)).get("/api/v1/admin/plans")).json
    assert (listed["default"], sorted(listed["plans"])) == ("default", ["default", "pro"])
    assert listed["plans"]["pro"]["budget"] == "50"


async def test_the_services_health_is_the_doctors_findings_beside_the_instances_own(world: World) -> None:
    world.diagnoses = [
        Diagnosis("letta", "version", Finding("ok", "Letta 0.16.8 answers")),
        Diagnosis("redis", "version", Finding("fail", "Redis 6.0 is too old", "Use Redis 6.2 or newer.")),
    ]
    world.letta.error = ConnectionError()
    health = (await (await admin(world)).get("/api/v1/admin/health")).json
    assert health["instance"]["status"] == "degraded"
    assert health["instance"]["checks"]["letta"]["status"] == "down"
    letta, redis = health["checks"]
    assert letta == {
        "service": "letta",
        "name": "version",
        "level": "ok",
        "message": "Letta 0.16.8 answers",
        "remedy": None,
    }
    assert (redis["service"], redis["level"], redis["remedy"]) == ("redis", "fail", "Use Redis 6.2 or newer.")
    assert health["checked_at"]
