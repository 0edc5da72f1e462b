"""The schemas of what connections receive, against what they did receive: each allows all of it, and nothing more."""

from collections import defaultdict
from collections.abc import Iterator
from typing import get_args

import orjson
import pytest
from pydantic import BaseModel

from server.api import asyncapi
from server.api.stream_examples import EXAMPLES
from server.api.stream_schemas import EVENT_STREAM, SOCKET
from server.ports import Announcement
from server.protocol.frames import parse_client_frame
from server.protocol.limits import Limits
from server.protocol.shapes import AgentStatus, Usage
from server.sessions.events.codec import TERMINAL
from tests.fakes.agent import MODEL_FAILED, Reply, Tool
from tests.unit.sessions.test_budget import set_budget
from tests.unit.streaming.server_fixture import Json, StreamingServer
from tests.virtual_time import virtual_time_with_sockets

LAST_ALLOWED = 6
BUSY = Reply(words=("a ", "b "), reasoning=("hm ", "so "), tools=(Tool("memory_insert"),), per_word=0.1)
SETTLED = {"cost": "1", "cost_status": "settled", "usage": Usage(1, 1, 2, 0, 0, 1).wire()}


async def _recorded() -> list[Json]:
    """All that the connections of some users receive in a few scenes."""
    frames: list[Json] = []
    limits = Limits(unsent_turns_per_period=1, messages_per_minute=LAST_ALLOWED)
    async with StreamingServer(limits=limits) as server:
        hub, gateway, user = server.process.hub, server.world.gateway, server.user()
        async with server.socket(user) as socket, server.events(user) as events:
            gateway.plan(BUSY, Reply(error=MODEL_FAILED), Reply(words=("on ",), stuck=True))
            await socket.send("ping")
            await socket.send("ping", id="p")
            await socket.send("nonsense", id="n")
            await socket.send("message", client_message_id="m0", content=" ")
            await socket.send("cancel")
            for number in range(3):
                await socket.send("message", client_message_id=f"m{number}", content=f"say {number}", id=f"{number}")
            await socket.until("turn.failed")
            await socket.until("message.delta")
            async with server.socket(user) as other:
                frames += other.seen
            await socket.send("message", client_message_id="m4", content="say 4")
            await socket.until("turn.queued")
            async with server.socket(user) as other:
                frames += other.seen
            await socket.send("cancel")
            await socket.until("turn.cancelled")
            await socket.until("turn.completed")
            for number in (1, 2, 4):
                await socket.send("message", client_message_id=f"m{number}", content=f"say {number}")
                end = await socket.until(*TERMINAL)
            await socket.send("auth", token=server.token(user))
            for settled in (SETTLED, {"cost": None, "cost_status": None, "usage": None}):
                hub.announce(user, Announcement("usage.settled", settled, end["turn_id"], 1))
            hub.announce(user, Announcement("budget.warning", {"spent": "8", "limit": "10", "level": 80}))
            hub.agent_changed(user, AgentStatus.FAILED, "No agent.")
            hub.agent_changed(user, AgentStatus.ACTIVE, None)
            while (await socket.until("agent.status"))["status"] != "active":
                pass
            hub.announce(user, Announcement("history.deleted", {"deleted_at": "2026-11-29T12:00:00Z"}))
            set_budget(server.world, user, "0")
            for number in (5, 6):
                await socket.send("message", client_message_id=f"m{number}", content="more")
            while (await socket.until("error"))["code"] != "budget_exceeded":
                pass
            set_budget(server.world, user, None)
            for number in (7, 8):
                await socket.send("message", client_message_id=f"m{number}", content="more")
            while (await socket.until("error"))["code"] != "rate_limited":
                pass
            async with server.socket(user, after=socket.seen[0]["cursor"]) as other:
                await other.until("turn.failed")
                frames += other.seen
            while (await events.until("turn.failed"))["turn"]["status"] != "unsent":
                pass
            frames += socket.seen + events.seen
    return frames


@virtual_time_with_sockets
async def test_every_message_is_received_and_no_field_is_looser_than_it_was_sent() -> None:
    """Each field that may be missing was missing and was there; each that may be null was, and was not."""
    recorded: dict[str, list[Json]] = defaultdict(list)
    for frame in await _recorded():
        recorded[frame["type"]].append(frame)
    models = {name: model for model in asyncapi.RECEIVED for name in [asyncapi.name_of(model)]}
    assert set(recorded) == set(models) - {"reconnect"}  # see test_sse.py
    loose = [
        f"{name}.{field}: {kind}"
        for name, frames in recorded.items()
        for field, definition in models[name].model_fields.items()
        for kind in _unused(definition.is_required(), type(None) in get_args(definition.annotation), field, frames)
    ]
    assert loose == []


def _unused(is_required: bool, may_be_null: bool, field: str, frames: list[Json]) -> Iterator[str]:
    if not is_required:
        if all(field in frame for frame in frames):
            yield "never missing"
        if all(field not in frame for frame in frames):
            yield "always missing"
    elif may_be_null:
        if all(frame[field] is not None for frame in frames):
            yield "never null"
        if all(frame[field] is None for frame in frames):
            yield "always null"


@pytest.mark.parametrize("model", EXAMPLES)
def test_each_message_has_a_valid_example(model: type[BaseModel]) -> None:
    for example in EXAMPLES[model]:
        if model in asyncapi.SENT:
            assert parse_client_frame(orjson.dumps(example).decode(), 65536).type == example["type"]
        else:
            adapters = [
                one
                for one, models in ((SOCKET, asyncapi.SOCKET_FRAMES), (EVENT_STREAM, asyncapi.STREAM_FRAMES))
                if model in (*asyncapi.EVENTS, *models)
            ]
            assert adapters
            for adapter in adapters:
                assert type(adapter.validate_json(orjson.dumps(example))) is model


def test_all_messages_have_examples_and_descriptions() -> None:
    assert set(EXAMPLES) == {*asyncapi.SENT, *asyncapi.RECEIVED}
    for message in asyncapi.document("1")["components"]["messages"].values():
        assert message["summary"].endswith(".")
