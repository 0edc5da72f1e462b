"""What a connection is sent when the log of its session begins a new epoch."""

import uuid
from contextlib import AsyncExitStack
from typing import Literal

import pytest

from server.sessions.events.snapshot import NOTHING_OPEN
from tests.unit.streaming.server_fixture import Events, Socket, StreamingServer
from tests.virtual_time import virtual_time_with_sockets

TURN = str(uuid.uuid4())


@pytest.mark.parametrize("kind", ["websocket", "events"])
@virtual_time_with_sockets
async def test_another_ready_precedes_the_events_of_a_new_epoch(kind: Literal["websocket", "events"]) -> None:
    async with StreamingServer() as server, AsyncExitStack() as stack:
        user = server.user()
        client: Socket | Events
        if kind == "websocket":
            client = await stack.enter_async_context(server.socket(user))
        else:
            client = await stack.enter_async_context(server.events(user))
            await client.until("ready")
        log = (await server.process.hub.session(user)).log
        log.append("message.delta", TURN, 1, text="before ")
        await client.until("message.delta")

        log.restart("another", 7, NOTHING_OPEN, (None, None), "")
        ready = await client.until("ready")
        assert (ready["cursor"], ready["resumed"]) == ("another:7", False)
        log.append("message.delta", TURN, 1, text="after")
        event = await client.until("message.delta")
        assert (event["epoch"], event["seq"], event["text"]) == ("another", 8, "after")
