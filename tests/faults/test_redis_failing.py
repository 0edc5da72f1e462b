"""Redis fails in mid-reply: the owner of a session goes on from memory, others refuse, and everything recovers."""

import aiohttp
import pytest

from tests.conftest import NewServer
from tests.faults.chaos import DROPPED, NORMAL, ChaosProxy
from tests.faults.two_servers import Json, TwoServers, content, faultless
from tests.stack.own_redis import OwnRedis
from tests.stack.running_stack import RunningStack

WHOLE = "w0 w1 w2 w3 w4"


async def test_no_word_is_lost_when_redis_dies_and_recovers(both: TwoServers, redis_server: OwnRedis) -> None:
    """It loses everything. The owner's device is not affected; the other one is disconnected and reconnects."""
    user, gate = await both.user(), both.gate()
    phone, laptop = await both.device(user, both.first), await both.device(user, both.second)
    message = await phone.say(f"GATE {gate} 2 3")
    turn_id = await laptop.until(lambda: laptop.transcript.turn_of.get(message))
    await laptop.until(lambda: laptop.text(message).split() == ["w0", "w1"])
    redis_server.crash()
    await laptop.until(lambda: laptop.closes[1013])
    body: Json = {"content": "ECHO is not accepted", "stream": False}
    status, problem = await both.call(both.second, user, "POST", "/chat/message", body)
    assert (status, problem["code"], problem["retryable"]) == (503, "events_unavailable", True)
    await both.open(gate)
    assert (await phone.end_of(message))["status"] == "completed"
    redis_server.start()
    await laptop.until(lambda: laptop.transcript.replies[turn_id].turn)
    again = await laptop.say("ECHO all is well")
    assert (await phone.end_of(again))["message"]["content"] == "all is well"
    assert phone.connections == 1
    assert content(phone, message) == content(laptop, message) == WHOLE
    assert faultless(phone, laptop)
    assert await both.asked(gate) == 1


async def test_no_word_is_lost_when_redis_loses_its_last_second(both: TwoServers, redis_server: OwnRedis) -> None:
    user, gate = await both.user(), both.gate()
    phone, laptop = await both.device(user, both.first), await both.device(user, both.second)
    message = await phone.say(f"GATE {gate} 2 3")
    redis_server.save()
    await laptop.until(lambda: laptop.text(message).split() == ["w0", "w1"])
    redis_server.crash()
    redis_server.start()
    await both.open(gate)
    await phone.end_of(message)
    turn_id = laptop.transcript.turn_of[message]
    await laptop.until(lambda: laptop.transcript.replies[turn_id].turn)
    assert content(phone, message) == content(laptop, message) == WHOLE
    assert faultless(phone, laptop)
    assert await both.asked(gate) == 1


async def test_after_redis_lost_its_last_second_and_the_owner_died_the_next_owner_begins_a_new_epoch(
    both: TwoServers, redis_server: OwnRedis
) -> None:
    user, gate = await both.user(), both.gate()
    phone = await both.device(user, both.first, both.second)
    message = await phone.say(f"GATE {gate} 2 3")
    redis_server.save()
    await phone.until(lambda: phone.text(message).split() == ["w0", "w1"])
    both.first.freeze()
    redis_server.crash()
    redis_server.start()
    both.first.kill()
    await both.open(gate)
    turn_id = phone.transcript.turn_of[message]
    await phone.until(lambda: phone.transcript.replies[turn_id].turn)
    assert content(phone, message) == WHOLE
    assert phone.transcript.epochs >= 2
    assert faultless(phone)
    assert await both.asked(gate) == 1


async def test_a_full_redis_is_unavailable_until_it_accepts_writes(both: TwoServers, redis_server: OwnRedis) -> None:
    user, gate = await both.user(), both.gate()
    phone = await both.device(user, both.first)
    message = await phone.say(f"GATE {gate} 2 3")
    await phone.until(lambda: phone.text(message).split() == ["w0", "w1"])
    redis_server.fill()
    try:
        await both.open(gate)
        assert (await phone.end_of(message))["message"]["content"] == WHOLE
    finally:
        redis_server.accept_writes()
    laptop = await both.device(user, both.second)
    again = await laptop.say("ECHO there is room")
    assert (await phone.end_of(again))["message"]["content"] == "there is room"
    assert (phone.connections, content(phone, message)) == (1, WHOLE)
    assert faultless(phone, laptop)


async def test_no_word_is_lost_when_replicas_are_deleted_in_mid_reply(both: TwoServers, redis_server: OwnRedis) -> None:
    user, gate = await both.user(), both.gate()
    phone, laptop = await both.device(user, both.first), await both.device(user, both.second)
    message = await phone.say(f"GATE {gate} 2 3")
    await laptop.until(lambda: laptop.text(message).split() == ["w0", "w1"])
    redis_server.client.flushall()
    await both.open(gate)
    for device in (phone, laptop):
        assert (await device.end_of(message))["message"]["content"] == content(device, message) == WHOLE
        assert device.connections == 1
    assert faultless(phone, laptop)


@pytest.mark.parametrize("manner", ["silent", "reset"])
async def test_a_broken_connection_to_redis_recovers(
    stack: RunningStack, http: aiohttp.ClientSession, new_server: NewServer, redis_server: OwnRedis, manner: str
) -> None:
    """Only of the owner: its sessions go on from memory, and the other instance receives their events again
    afterwards."""
    async with ChaosProxy(redis_server.port) as line:
        first = await new_server("first", REDIS_URL=f"redis://127.0.0.1:{line.port}/0")
        second = await new_server("second", REDIS_URL=redis_server.url)
        async with TwoServers(stack, http, first, second) as both:
            user, gate = await both.user(), both.gate()
            phone, laptop = await both.device(user, first), await both.device(user, second)
            message = await phone.say(f"GATE {gate} 2 3")
            await laptop.until(lambda: laptop.text(message).split() == ["w0", "w1"])
            if manner == "silent":
                line.set(DROPPED)
            else:
                await line.refuse()
                for link in line.links:
                    link.reset()
            await both.open(gate)
            assert (await phone.end_of(message))["message"]["content"] == WHOLE
            line.set(NORMAL)
            if manner == "reset":
                line.listen()
            turn_id = laptop.transcript.turn_of[message]
            await laptop.until(lambda: laptop.transcript.replies[turn_id].turn)
            again = await laptop.say("ECHO heard again")
            assert (await phone.end_of(again))["message"]["content"] == "heard again"
            assert content(phone, message) == content(laptop, message) == WHOLE
            assert phone.connections == 1
            assert faultless(phone, laptop)


async def test_a_redis_url_where_no_redis_answers_leaves_one_instance_working(
    stack: RunningStack, http: aiohttp.ClientSession, new_server: NewServer
) -> None:
    """The service at that address speaks another protocol."""
    model = stack.model_url.removeprefix("http://")
    server = await new_server("alone", REDIS_URL=f"redis://{model}/0")
    async with TwoServers(stack, http, server, server) as alone:
        user = await alone.user()
        phone = await alone.device(user, server)
        message = await phone.say("ECHO from memory")
        assert (await phone.end_of(message))["message"]["content"] == "from memory"
        async with http.get(f"{server.url}/ready") as response:
            ready = await response.json()
        assert (response.status, ready["status"], ready["checks"]["redis"]["status"]) == (200, "degraded", "down")
        assert faultless(phone)
