"""The patches of Letta's process: listed with their outcomes, applied to known code only, without effect on what is
stored."""

import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psycopg
import pytest
from letta_patches import PATCHES
from psycopg.rows import DictRow, dict_row

from server.ports import AgentHandle, RunStarted
from server.stack.letta import patches_folder
from tests.letta_world import LettaWorld, letta_world
from tests.stack.patches import applied_patches
from tests.stack.running_stack import RunningStack

ENDED = """
select a.last_stop_reason, a._last_updated_by_id as updated_by,
    a.updated_at >= r.completed_at at time zone 'utc' as updated, r.status, r.stop_reason,
    m.num_steps, m.run_ns > 0 as measured, json_array_length(m.tools_used) as tools
from runs r join run_metrics m using (id) join agents a on a.id = r.agent_id where r.id = %s
"""


@pytest.fixture(scope="module")
async def world(stack_env: dict[str, str]) -> AsyncIterator[LettaWorld]:
    async with letta_world(stack_env) as opened:
        yield opened


async def test_letta_lists_its_patches_only_with_its_password(stack: RunningStack, http: aiohttp.ClientSession) -> None:
    url = f"{stack.env['LETTA_BASE_URL'].rstrip('/')}/v1/patches"
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        async with http.get(url, headers=headers) as response:
            assert (response.status, await response.json()) == (401, {"detail": "Unauthorized"})
    async with http.get(url, headers={"Authorization": f"Bearer {stack.env['LETTA_API_TOKEN']}"}) as response:
        answer = await response.json()
    names = [patch.__name__.rpartition(".")[2] for patch in PATCHES]
    assert [patch["name"] for patch in answer["patches"]] == names
    assert {patch["name"] for patch in answer["patches"] if patch["applied"]} == applied_patches()
    log = (stack.data_dir / "logs" / "letta.log").read_text()
    for name in names:
        assert f"Patch {name} is {'applied' if name in applied_patches() else 'NOT applied'}: " in log


async def ended(stack: RunningStack, world: LettaWorld, agent: AgentHandle, text: str) -> DictRow:
    """What Letta has stored about the run of a message, and about its agent."""
    events = await world.say(agent, text)
    assert isinstance(events[0], RunStarted)
    await world.ended(agent, events[0].run_id)
    address = stack.env["LETTA_DB_URL"]
    async with await psycopg.AsyncConnection.connect(address, row_factory=dict_row) as connection:
        row = await (await connection.execute(ENDED, [events[0].run_id])).fetchone()
    assert row is not None
    return row


async def test_the_end_of_a_run_is_stored_with_the_run_and_its_agent(stack: RunningStack, world: LettaWorld) -> None:
    agent = await world.stranger()
    stored = {
        "last_stop_reason": "end_turn",
        "updated_by": agent.member_id,
        "updated": True,
        "status": "completed",
        "stop_reason": "end_turn",
        "measured": True,
    }
    assert await ended(stack, world, agent, "ECHO one two") == {**stored, "num_steps": 1, "tools": None}
    searched = await ended(stack, world, agent, 'CALL conversation_search {"query": "one"}')
    assert searched == {**stored, "num_steps": 2, "tools": 1}


CHECKS = """
import json
from letta.adapters.letta_llm_stream_adapter import LettaLLMStreamAdapter as First
from letta.adapters.simple_llm_stream_adapter import SimpleLLMStreamAdapter as Second
from letta.helpers.crypto_utils import CryptoUtils
from letta.orm.agent import Agent
from letta.orm.message import Message
from letta.schemas.tool import Tool
from letta_patches import derived_keys, stop, tool_schemas, unused_rows
from letta_patches.known import UnknownCodeError
from sqlalchemy import event, select
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.orm import Session

async def invoke_llm(self, other): yield other
invoke_llm.__qualname__ = Second.invoke_llm.__qualname__
before, Second.invoke_llm = First.invoke_llm, invoke_llm
try:
    stop.apply()
except UnknownCodeError as error:
    refused = [str(error), First.invoke_llm is before, Second.invoke_llm is invoke_llm]

unused_rows.apply()
left_out = {}
def options(query):
    left_out[name] = len(query.statement._with_options)
    return IteratorResult(SimpleResultMetaData(["x"]), iter([]))
event.listen(Session, "do_orm_execute", options)
for name, query in {"messages": select(Message), "ids": select(Message.id), "agents": select(Agent)}.items():
    Session().execute(query)
unused_rows._creating_run.set(True)
name = "agent of a new run"
Session().execute(select(Agent))

key = CryptoUtils._derive_key("master", b"0" * 16)
derived_keys.apply()
derived = CryptoUtils._derive_key("master", b"0" * 16) == key
CryptoUtils._derive_key("master", b"0" * 16)
cache = CryptoUtils._derive_key_cached.cache_info()

released = Tool(name="memory_insert", tool_type="letta_core").json_schema
tool_schemas.apply()
same = Tool(name="memory_insert", tool_type="letta_core").json_schema == released
print(json.dumps({"refused": refused, "left_out": left_out, "derived": derived, "cache": [cache.hits, cache.maxsize],
    "same": same, "schema": released["name"]}))
"""


@pytest.fixture(scope="module")
def checks(stack: RunningStack) -> dict[str, Any]:
    """Patches applied to Letta's own code, in a process that does not serve."""
    environment = {
        "PYTHONPATH": str(patches_folder()),
        "HOME": str(stack.data_dir / "letta"),
        "LETTA_PG_URI": "postgresql://nobody@127.0.0.1:9/none",
        "LETTA_ENCRYPTION_KEY": "a key",
    }
    argv = [str(stack.data_dir / "env" / "letta" / "bin" / "python"), "-W", "ignore", "-c", CHECKS]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_a_letta_with_a_changed_adapter_is_not_patched(checks: dict[str, Any]) -> None:
    [message, *unchanged] = checks["refused"]
    assert "SimpleLLMStreamAdapter.invoke_llm is another (" in message
    assert unchanged == [True, True]


def test_only_whole_messages_and_the_agents_of_new_runs_are_read_without_other_rows(checks: dict[str, Any]) -> None:
    assert checks["left_out"] == {"messages": 2, "ids": 0, "agents": 0, "agent of a new run": 1}


def test_a_larger_cache_derives_the_same_keys(checks: dict[str, Any]) -> None:
    assert (checks["derived"], checks["cache"]) == (True, [1, 65_536])


def test_a_cached_schema_of_a_tool_is_the_released_one(checks: dict[str, Any]) -> None:
    assert (checks["same"], checks["schema"]) == (True, "memory_insert")
