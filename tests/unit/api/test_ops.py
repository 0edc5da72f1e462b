"""Health, readiness, and the API's description of itself."""

import asyncio
import hashlib
import json
import re
from dataclasses import MISSING, dataclass, field, fields
from importlib.resources import files
from typing import Any

import pytest

from server.api import router
from server.api.openapi import document
from server.http.routes import Route
from server.observability.readiness import Phase, Readiness
from tests.unit.api.world import SwitchProbe, World


async def test_health_is_ok_also_for_head(world: World) -> None:
    assert (await world.visitor.get("/health")).json == {"status": "ok"}
    head = await world.visitor.request("HEAD", "/health")
    assert (head.status, head.raw) == (200, b"")


async def test_ready_lists_every_dependency(world: World) -> None:
    answer = await world.visitor.get("/ready")
    assert (answer.status, answer.json["status"]) == (200, "ready")
    assert answer.json["version"]
    assert {name: check["status"] for name, check in answer.json["checks"].items()} == {"letta": "up", "supabase": "up"}


async def test_an_unavailable_dependency_is_degraded_with_traffic_and_without_secrets(world: World) -> None:
    world.letta.error = ConnectionRefusedError("http://letta.internal:8283 refused")
    answer = await world.visitor.get("/ready")
    assert (answer.status, answer.json["status"]) == (200, "degraded")
    assert answer.json["checks"]["letta"]["status"] == "down"
    assert answer.json["checks"]["supabase"] == {**answer.json["checks"]["supabase"], "status": "up", "error": None}
    assert b"internal" not in answer.raw


@pytest.mark.parametrize("phase", ["starting", "draining"])
async def test_starting_and_draining_take_no_traffic(world: World, phase: Phase) -> None:
    world.lifecycle.phase = phase
    answer = await world.visitor.get("/ready")
    assert (answer.status, answer.json["status"]) == (503, phase)


@dataclass(slots=True)
class StuckProbe:
    name: str = "stuck"
    never: asyncio.Event = field(default_factory=asyncio.Event)

    async def ping(self) -> None:
        await self.never.wait()


async def test_probes_run_concurrently_with_a_timeout() -> None:
    meeting = asyncio.Barrier(2)

    class Meeting(StuckProbe):
        async def ping(self) -> None:
            await meeting.wait()

    probes = [Meeting("a"), Meeting("b"), StuckProbe()]
    report = await Readiness(probes, lambda: "running", timeout=0.05).report()
    assert {name: check.status for name, check in report.checks.items()} == {"a": "up", "b": "up", "stuck": "down"}
    assert report.checks["stuck"].error == "no answer within 0.05 s"


async def test_an_instance_is_starting_until_it_has_reached_its_first_dependencies() -> None:
    now = 100.0
    letta, supabase = SwitchProbe("letta"), SwitchProbe("supabase", error=ConnectionError())
    readiness = Readiness([letta, supabase], lambda: "running", needed_first=["supabase"], clock=lambda: now)
    report = await readiness.report()
    assert (report.status, report.takes_traffic, report.checks["supabase"].status) == ("starting", False, "down")
    for error, letta_error, status in (
        (None, ConnectionError(), "degraded"),  # Letta may come later
        (ConnectionError(), None, "degraded"),  # reached once is reached
        (None, None, "ready"),
    ):
        now += 2.0
        supabase.error, letta.error = error, letta_error
        assert (await readiness.report()).status == status


async def test_reports_are_cached() -> None:
    now = 100.0
    probe = SwitchProbe("letta")
    readiness = Readiness([probe], lambda: "running", clock=lambda: now)
    await asyncio.gather(*(readiness.report() for _ in range(50)))
    assert probe.pings == 1
    now += 2.0
    probe.error = ConnectionError()
    assert (await readiness.report()).status == "degraded"
    assert probe.pings == 2


async def test_the_pages_load_only_from_their_own_origin(world: World) -> None:
    for path in ("/", "/docs", "/auth/callback?code=x"):
        answer = await world.visitor.get(path)
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert b"//" not in answer.raw.replace(b"<!--", b"")
    for name in ("style.css", "docs.js", "callback.css", "callback.js", "callback_words.js"):
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        assert (await world.visitor.get(f"/pages/{name}")).headers["Content-Type"].startswith(kind)
    assert (await world.visitor.get("/pages/index.html")).status == 404


async def test_the_reference_allows_style_elements_by_a_new_nonce_each_time_and_nothing_inline(world: World) -> None:
    answers = [await world.visitor.get("/docs") for _ in range(2)]
    policies = [answer.headers["Content-Security-Policy"] for answer in answers]
    nonces = [match[1] for policy in policies if (match := re.search(r"style-src 'self' 'nonce-([\w-]{22})'", policy))]
    assert len(set(nonces)) == 2
    for answer, policy, nonce in zip(answers, policies, nonces, strict=True):
        assert f'nonce="{nonce}"'.encode() in answer.raw
        assert "unsafe" not in policy
        assert "script-src 'self';" in policy
        assert "connect-src 'self';" in policy
    assert "nonce" not in (await world.visitor.get("/")).headers["Content-Security-Policy"]


async def test_the_library_of_the_reference_is_the_locked_one(world: World) -> None:
    """When this fails, run scripts/vendor_scalar.py."""
    pages = files("server.api") / "pages"
    lock = json.loads((pages / "scalar.lock.json").read_text("utf-8"))
    assert "MIT" in (pages / "scalar.LICENSE.txt").read_text("utf-8")
    for encoding in ("gzip", "identity"):
        answer = await world.visitor.get("/pages/scalar.js", headers={"Accept-Encoding": encoding})
        assert answer.headers.get("Content-Encoding", "identity") == encoding
        assert hashlib.sha256(answer.raw).hexdigest() == lock["sha256"]


async def test_the_description_is_served(world: World) -> None:
    answer = await world.visitor.get("/openapi.json")
    assert answer.json["openapi"] == "3.1.0"
    assert set(answer.json["paths"]) == {route.path for route in router.ROUTES}


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*(_references(inner) for inner in value.values()))
    if isinstance(value, list):
        return set().union(*(_references(inner) for inner in value))
    return set()


def test_every_reference_of_the_description_resolves() -> None:
    api = document(router.ROUTES, "1")
    kinds = api["components"].items()
    assert _references(api) <= {f"#/components/{kind}/{name}" for kind, named in kinds for name in named}


def test_the_description_gives_json_an_object_and_event_streams_the_schema_of_an_event() -> None:
    paths = document(router.ROUTES, "0")["paths"]
    itself = paths["/openapi.json"]["get"]["responses"]["200"]["content"]
    assert itself == {"application/json": {"schema": {"type": "object"}}}
    [(media, stream)] = paths["/api/v1/chat/events"]["get"]["responses"]["200"]["content"].items()
    assert media == "text/event-stream"
    assert stream["schema"]["properties"]["data"] == {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": "#/components/schemas/StreamedEvent"},
    }


def test_operation_ids_are_unique() -> None:
    ids = [op["operationId"] for path in document(router.ROUTES, "1")["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids))


def test_all_endpoints_of_the_protocol_are_described() -> None:
    api = "/api/v1"
    assert {(route.method, route.path) for route in router.ROUTES} >= {
        ("POST", f"{api}/auth/register"),
        ("POST", f"{api}/auth/login"),
        ("POST", f"{api}/auth/refresh"),
        ("GET", f"{api}/auth/me"),
        ("POST", f"{api}/auth/logout"),
        ("POST", f"{api}/chat/message"),
        ("GET", f"{api}/chat/turns/{{turn_id}}"),
        ("POST", f"{api}/chat/turns/{{turn_id}}/retry"),
        ("POST", f"{api}/chat/cancel"),
        ("GET", f"{api}/chat/history"),
        ("POST", f"{api}/chat/ticket"),
        ("GET", f"{api}/chat/events"),
        ("GET", f"{api}/chat/stream"),
        ("GET", f"{api}/agent/status"),
        ("GET", f"{api}/agent/memory"),
        ("PATCH", f"{api}/agent/memory/{{label}}"),
        ("GET", f"{api}/agent/memory/archival"),
        ("POST", f"{api}/agent/memory/archival"),
        ("PATCH", f"{api}/agent/memory/archival/{{passage_id}}"),
        ("DELETE", f"{api}/agent/memory/archival/{{passage_id}}"),
        ("DELETE", f"{api}/chat/history"),
        ("DELETE", f"{api}/user"),
        ("GET", f"{api}/user/export"),
        ("GET", f"{api}/user/profile"),
        ("PATCH", f"{api}/user/profile"),
        ("GET", f"{api}/user/usage"),
        ("GET", f"{api}/about"),
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/auth/callback"),
        ("GET", "/"),
    }


@pytest.mark.parametrize(
    "route", [r for r in router.ROUTES if r.access != "public" and r.credential != "socket"], ids=lambda r: r.path
)
async def test_every_endpoint_but_the_open_ones_authenticates(world: World, route: Route) -> None:
    path = re.sub(r"{\w+}", "1", route.path)
    answer = await world.visitor.request(route.method, path)
    assert (answer.status, answer.code) == (401, "unauthorized")


def test_only_sign_in_and_operations_are_open() -> None:
    open_paths = {route.path for route in router.ROUTES if route.access == "public"}
    names = ("register", "login", "refresh", "verify", "resend", "recover", "reset")
    signing_in = {f"/api/v1/auth/{name}" for name in names}
    describing = {"/api/v1/about", "/openapi.json", "/asyncapi.json", "/docs", "/", "/pages/{name}", "/auth/callback"}
    assert open_paths == signing_in | describing | {"/health", "/ready", "/metrics"}


def test_the_description_says_who_may_use_each_endpoint() -> None:
    paths = document(router.ROUTES, "1")["paths"]
    for route in router.ROUTES:
        assert paths[route.path][route.method.lower()]["x-access"] == route.access


def test_a_route_without_access_is_impossible() -> None:
    named = {field.name: field for field in fields(Route)}
    assert (named["access"].default, named["access"].default_factory) == (MISSING, MISSING)
