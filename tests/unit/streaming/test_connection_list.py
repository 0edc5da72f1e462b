"""The list of a user's open connections, on all instances."""

from server.ports import Credential
from server.streaming.connection_list import ConnectionList
from server.streaming.subscriber import Subscriber
from tests.unit.sessions.world import Process, World
from tests.unit.streaming.server_fixture import StreamingServer
from tests.virtual_time import now, virtual_time, virtual_time_with_sockets


def listed(process: Process) -> ConnectionList:
    """The list of this instance, which answers the others from now on."""
    connections = ConnectionList(process.hub)
    process.on_message = connections.received
    return connections


class Device(Subscriber):
    """A connection without a client."""

    kind = "websocket"
    is_writing = False

    def wake(self) -> None: ...


async def open_on(process: Process, user_id: str, session_id: str) -> Device:
    device = Device()
    device.credential, device.opened_at = Credential(user_id, session_id), now()
    await process.hub.attach(user_id, device, None)
    return device


@virtual_time_with_sockets
async def test_open_connections_are_listed_with_what_opened_them_until_they_close() -> None:
    async with StreamingServer() as server:
        user, other = server.user(), server.user()
        connections = listed(server.process)
        async with server.socket(user), server.events(user) as stream, server.socket(other):
            await stream.until("ready")
            assert sorted(one.kind for one in await connections.of_user(user)) == ["events", "websocket"]
        assert await connections.of_user(server.user()) == []


@virtual_time
async def test_every_instance_is_asked_and_only_for_connections_of_this_user() -> None:
    async with World(shared=True) as world:
        user, other = world.user(), world.user()
        first, second, third = [await world.process() for _ in range(3)]
        lists = [listed(process) for process in (first, second, third)]
        await open_on(first, user, "phone")
        await open_on(second, user, "laptop")
        await open_on(second, other, "stranger")
        for asked in lists:
            found = await asked.of_user(user)
            assert {one.session_id for one in found} == {"phone", "laptop"}
            assert found == sorted(found, key=lambda one: one.opened_at, reverse=True)


@virtual_time
async def test_an_instance_that_does_not_answer_is_left_out() -> None:
    async with World(shared=True) as world:
        user = world.user()
        first, second = [await world.process() for _ in range(2)]
        await open_on(first, user, "phone")
        await open_on(second, user, "laptop")
        assert [one.session_id for one in await listed(first).of_user(user)] == ["phone"]
