"""Supabase failing at each step of a turn: no refused message is stored, no accepted message is lost."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.faults.failing_world import FailingWorld, Resident, failing_world, server_behind_proxies, unique
from tests.faults.fault_kinds import Answer, Hang, Interrupted, Reset
from tests.faults.http_faults import Fault, FaultProxy
from tests.faults.supabase_calls import UNAVAILABLE, assert_unavailable, rpc, until_it_works
from tests.stack.chat_client import TIMEOUT, Json
from tests.stack.running_stack import RunningStack

JSON: Final = "application/json"

FAULTS: Final[dict[str, Fault]] = {
    "reset": Reset(),
    "500": Answer(500),
    "500 in JSON": Answer(500, b'{"message": "sk-vendor-secret"}', JSON),
    "502": Answer(502),
    "503": Answer(503),
    "429": Answer(429, retry_after=17),
    "403 of a gateway": Answer(403),
    "a key of the future": Answer(401, b'{"code": "PGRST303", "message": "JWT issued at future"}', JSON),
    "a key that a gateway refuses": Answer(401, b'{"message": "Invalid API key"}', JSON),
    "read-only": Answer(405, b'{"code": "25006", "message": "cannot execute INSERT in a read-only transaction"}', JSON),
    "a stale schema": Answer(404, b'{"code": "PGRST202", "message": "Could not find the function"}', JSON),
    "a page of HTML": Answer(200),
    "no JSON": Answer(200, b"{", JSON),
    "a body cut short": Interrupted(1, "reset"),
}
"""Faults of any request. All but the last happen before it reaches the database."""

SOME: Final = ("reset", "503", "429", "a page of HTML", "a body cut short")
"""One fault of each kind, for steps that handle all of a kind alike."""

TIMES: Final = 3
"""More often than a call is retried at once."""

_CLOSE_OTHERS: Final = """select pg_terminate_backend(pid) from pg_stat_activity
                          where datname = current_database() and pid <> pg_backend_pid()"""

READS: Final[dict[str, tuple[str, str]]] = {
    "history": ("/chat/history", "^/rest/v1/messages"),
    "usage": ("/user/usage", "^/rest/v1/usage"),
    "profile": ("/user/profile", "^/rest/v1/user_profiles"),
    "status": ("/agent/status", "^/rest/v1/user_profiles"),
}


@pytest.fixture(scope="module")
async def world(
    stack: RunningStack, server_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FailingWorld]:
    log = tmp_path_factory.mktemp("supabase") / "server.log"
    async with failing_world(stack, server_env, log) as world:
        yield world


@pytest.fixture
async def ada(world: FailingWorld) -> Resident:
    return await world.resident()


async def report(world: FailingWorld, *down: str) -> Json:
    """What `/ready` answers once exactly these services are down: another one may be slow for a moment."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            async with world.http.get(f"{world.server.url}/ready") as response:
                said: Json = world.presentable(await response.json())
                assert response.status == 200
                if {name for name, check in said["checks"].items() if check["status"] == "down"} == set(down):
                    return said
            await asyncio.sleep(0.3)


# -- accepting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "a body cut short"])
async def test_a_message_that_cannot_be_stored_is_refused_and_its_id_is_free(
    world: FailingWorld, ada: Resident, name: str
) -> None:
    text, message_id = unique(), str(uuid.uuid4())
    body = {"content": f"ECHO {text}", "client_message_id": message_id, "stream": False}
    with world.supabase.breaking(FAULTS[name], "POST", rpc("accept_turn"), mentions=text):
        status, problem = await ada.user.call("POST", "/chat/message", body)
    assert_unavailable(world.presentable(problem), status)
    assert problem["retry_after"] == (17 if name == "429" else 5)
    assert await world.stored_turns(ada.user, f"ECHO {text}") == []
    await until_it_works(ada.user, body)
    (stored,) = await world.stored_turns(ada.user, f"ECHO {text}")
    assert (stored["status"], stored["attempt"]) == ("completed", 1)
    assert await world.model_calls(text) == 1


async def test_a_device_gets_the_refusal_as_a_frame_and_sends_again_on_the_same_socket(
    world: FailingWorld, ada: Resident
) -> None:
    text, message_id = unique(), str(uuid.uuid4())
    async with ada.user.connect() as device:
        async with world.supabase.refusing():
            refused = world.presentable(await device.say(f"ECHO {text}", client_message_id=message_id))
        assert (refused["type"], refused["code"], refused["retryable"]) == ("error", UNAVAILABLE, True)
        assert refused["retry_after"] > 0
        assert await world.stored_turns(ada.user, f"ECHO {text}") == []
        device.frames.clear()
        while (answer := await device.say(f"ECHO {text}", client_message_id=message_id))["type"] == "error":
            device.frames.clear()
            await asyncio.sleep(0.3)
        assert (await device.end_of(answer["turn_id"]))["turn"]["message"]["content"] == text
    assert await world.model_calls(text) == 1


# -- a turn that runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "name"),
    [*(("finish_turn", name) for name in [*FAULTS, "lost"]), *(("set_run", name) for name in [*SOME, "lost"])],
)
async def test_the_end_of_a_reply_is_published_once_after_it_was_stored(
    world: FailingWorld, ada: Resident, function: str, name: str
) -> None:
    text = unique()
    fault = FAULTS.get(name, Reset(forwarded=True))
    with world.supabase.breaking(fault, "POST", rpc(function), mentions=ada.user.id, times=TIMES) as broken:
        async with ada.user.connect() as device:
            ack = await device.say(f"{text} SLOW 4 0.05")
            end = world.presentable(await device.end_of(ack["turn_id"]))
            assert [f["type"] for f in device.events_of(ack["turn_id"])].count("turn.completed") == 1
    assert broken.played > 0
    assert end["turn"]["message"]["content"] == "w0 w1 w2 w3"
    (stored,) = await world.stored_turns(ada.user, f"{text} SLOW 4 0.05")
    assert (stored["status"], stored["run_id"] is not None) == ("completed", True)
    assert await world.model_calls(text) == 1


@pytest.mark.parametrize("name", [*SOME, "lost"])
async def test_a_queued_message_is_started_when_supabase_recovers(
    world: FailingWorld, ada: Resident, name: str
) -> None:
    first, second, gate = unique(), unique(), unique()
    fault = FAULTS.get(name, Reset(forwarded=True))
    with world.supabase.breaking(fault, "POST", rpc("start_turn"), mentions=ada.user.id, times=TIMES) as broken:
        async with ada.user.connect() as device:
            running = await device.say(f"{first} GATE {gate} 1 1")
            waiting = await device.say(f"ECHO {second}")
            await world.stack.open_gate(world.http, gate)
            assert (await device.end_of(running["turn_id"]))["type"] == "turn.completed"
            end = world.presentable(await device.end_of(waiting["turn_id"]))
    assert broken.played > 0
    assert (end["type"], end["turn"]["message"]["content"]) == ("turn.completed", second)
    assert await world.model_calls(second) == 1


@pytest.mark.parametrize("name", SOME)
async def test_a_cancel_that_cannot_be_stored_is_refused_and_can_be_repeated(
    world: FailingWorld, ada: Resident, name: str
) -> None:
    text = unique()
    async with ada.user.connect() as device:
        ack = await device.say(f"{text} SLOW 2000 0.05")  # it is still being written when the cancel is stored
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]) != "")
        with world.supabase.breaking(FAULTS[name], "POST", rpc("request_cancel"), mentions=ada.user.id):
            status, problem = await ada.user.call("POST", "/chat/cancel", {"turn_id": ack["turn_id"]})
        assert_unavailable(world.presentable(problem), status)
        async with asyncio.timeout(TIMEOUT):
            while (await ada.user.call("POST", "/chat/cancel", {"turn_id": ack["turn_id"]}))[0] != 200:
                await asyncio.sleep(0.3)
        assert (await device.end_of(ack["turn_id"]))["type"] == "turn.cancelled"
    await world.assert_works(ada.user)


# -- a database that takes no writes ---------------------------------------------------------------------------------


@asynccontextmanager
async def _read_only(world: FailingWorld) -> AsyncIterator[None]:
    """As when the disk is nearly full: all connections are read-only."""
    url = world.env["SUPABASE_DB_URL"]
    name = sql.Identifier(urlsplit(url).path.removeprefix("/"))
    writing = "-c default_transaction_read_only=off"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True, options=writing) as owner:
        await owner.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
        try:
            await _reconnect_all(world, owner)
            yield
        finally:
            await owner.execute(sql.SQL("alter database {} reset default_transaction_read_only").format(name))
            await _reconnect_all(world, owner)


def asked(world: FailingWorld) -> int:
    """The requests that Letta got, without those of `/ready`, which this test asks for as long as it takes."""
    return len(world.letta.seen) - world.letta.requests("GET", "^/v1/health")


async def _reconnect_all(world: FailingWorld, owner: psycopg.AsyncConnection) -> None:
    """Close all other connections while there are no requests: at other times Supabase Lite does not reconnect well."""
    async with asyncio.timeout(TIMEOUT), world.supabase.holding():
        while (await owner.execute(_CLOSE_OTHERS)).rowcount:
            await asyncio.sleep(0.02)


async def test_a_read_only_database_is_unavailable_until_it_accepts_writes(world: FailingWorld, ada: Resident) -> None:
    text, other, gate, message_id = unique(), unique(), unique(), str(uuid.uuid4())
    body = {"content": f"ECHO {other}", "client_message_id": message_id, "stream": False}
    before, logged = asked(world), len(world.server.log.read_text("utf-8"))
    async with ada.user.connect() as device:
        ack = await device.say(f"{text} GATE {gate} 1 1")
        await device.wait_for(lambda _: device.text_of(ack["turn_id"]) != "")
        async with _read_only(world):
            tried = world.supabase.requests("POST", rpc("finish_turn"), ada.user.id)
            await world.stack.open_gate(world.http, gate)
            assert (await report(world, "supabase"))["status"] == "degraded"
            status, problem = await ada.user.call("POST", "/chat/message", body)
            assert_unavailable(world.presentable(problem), status)
            await ada.user.get("/chat/history")  # its connection was closed too
            async with asyncio.timeout(TIMEOUT):
                while world.supabase.requests("POST", rpc("finish_turn"), ada.user.id) < tried + 4:
                    await asyncio.sleep(0.3)
        end = world.presentable(await device.end_of(ack["turn_id"]))
        assert [f["type"] for f in device.events_of(ack["turn_id"])].count("turn.completed") == 1
    assert end["turn"]["message"]["content"] == "w0 w1"
    assert (await report(world))["status"] == "ready"
    await until_it_works(ada.user, body)
    assert [await world.model_calls(said) for said in (text, other)] == [1, 1]
    assert asked(world) - before < 100
    log = world.server.log.read_text("utf-8")
    assert "supabase.read_only" in log
    assert "Traceback" not in log[logged:]


# -- connecting and reading ------------------------------------------------------------------------------------------


async def test_a_socket_is_closed_while_open_turns_cannot_be_read_and_the_next_one_opens(world: FailingWorld) -> None:
    ada = (await world.new_resident()).user
    with world.supabase.breaking(Answer(503), "POST", rpc("open_turns"), mentions=ada.id):
        async with world.http.ws_connect(f"{ada.url}/api/v1/chat/stream", headers=ada.headers) as socket:
            error = world.presentable(await socket.receive_json())
            assert (error["type"], error["code"], error["retryable"]) == ("error", UNAVAILABLE, True)
            await socket.receive()
            assert socket.close_code == 1013
    await world.assert_works(ada)


async def test_an_event_stream_that_cannot_begin_is_refused_like_any_request(world: FailingWorld) -> None:
    ada, text = (await world.new_resident()).user, unique()
    with world.supabase.breaking(Answer(503, retry_after=17), "POST", rpc("open_turns"), mentions=ada.id):
        status, problem = await ada.call("GET", "/chat/events")
    assert_unavailable(world.presentable(problem), status)
    with world.supabase.breaking(Answer(503, retry_after=17), "POST", rpc("accept_turn"), mentions=text):
        status, problem = await ada.call("POST", "/chat/message", {"content": f"ECHO {text}", "stream": True})
    assert_unavailable(world.presentable(problem), status)
    assert problem["retry_after"] == 17
    await world.assert_works(ada)


@pytest.mark.parametrize("service", ["supabase", "letta", "litellm"])
async def test_readiness_names_the_unavailable_service_and_stays_200(world: FailingWorld, service: str) -> None:
    proxy: FaultProxy = getattr(world, service)
    async with proxy.refusing():
        assert (await report(world, service))["status"] == "degraded"
    assert (await report(world))["status"] == "ready"


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("name", FAULTS)
async def test_reads_fail_while_supabase_is_unavailable_and_work_afterwards(
    world: FailingWorld, ada: Resident, name: str, read: str
) -> None:
    path, table = READS[read]
    with world.supabase.breaking(FAULTS[name], "GET", table, mentions=ada.user.id):
        status, problem = await ada.user.call("GET", path)
    assert_unavailable(world.presentable(problem), status)
    await ada.user.get(path)


async def test_a_server_that_cannot_fetch_the_projects_keys_recovers_without_a_restart(
    world: FailingWorld,
    ada: Resident,
    tmp_path: Path,
) -> None:
    same_model = {"LITELLM_URL_FOR_LETTA": world.model.url}
    async with server_behind_proxies(world.stack, world.env, tmp_path / "server.log", **same_model) as fresh:
        user = replace(ada.user, url=fresh.server.url)
        broken = [fault for name, fault in FAULTS.items() if name != "a stale schema"]  # 404: it publishes no keys
        for fault in (*broken, Hang()):
            with fresh.supabase.breaking(fault, "GET", "jwks.json"):
                answers = await asyncio.gather(*(user.call("GET", "/auth/me") for _ in range(6)))
            for status, problem in answers:
                assert_unavailable(fresh.presentable(problem), status)
        await user.get("/auth/me")
        with fresh.supabase.breaking(Reset(), "GET", "jwks.json"):
            await user.get("/auth/me")  # fetched keys stay valid during an outage
