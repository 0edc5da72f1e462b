"""One turn from its acceptance to its end."""

from tests.fakes.agent import Reply
from tests.unit.sessions.world import SPOKEN, World
from tests.virtual_time import virtual_time


@virtual_time
async def test_every_device_sees_the_reply_word_by_word_and_its_end() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        phone, laptop = await process.device(user), await process.device(user)
        accepted = await process.send(user, "count")
        for device in (phone, laptop):
            end = await device.until_end(accepted.turn.id)
            assert device.types == ["turn.started", "message.delta", "turn.completed"]
            assert [e["text"] for e in device.events if e["type"] == "message.delta"] == list(SPOKEN.words)
            assert device.streamed(accepted.turn.id) == end["turn"]["message"]["content"] == SPOKEN.text
        assert world.sends("count") == 1


@virtual_time
async def test_the_agent_is_read_beside_the_acceptance_of_a_message_that_can_start() -> None:
    async with World() as world:
        process, user = await world.process(), world.user()
        prefetched: list[list[str]] = []

        async def accepting(operation: str) -> None:
            if operation == "accept":
                prefetched.append(list(world.agents.prefetched))

        world.database.before = accepting
        world.gateway.plan(Reply(words=("Well, ",), stuck=True))
        await process.send(user, "now")
        await process.send(user, "later")
        assert prefetched == [[user], [user]]
