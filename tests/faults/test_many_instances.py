"""Any connection of a user works on any instance: sending, stopping, repeating, reading, and takeovers."""

import asyncio
import json
from dataclasses import replace

import aiohttp
import pytest

from tests.conftest import NewServer
from tests.faults.two_servers import Json, TwoServers, faultless, start_two, two_servers
from tests.stack.own_redis import OwnRedis
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import RunningStack
from tests.stack.test_steps import search, steps_seen


@pytest.fixture(scope="module")
async def pair(new_shared_server: NewServer, redis_server: OwnRedis) -> tuple[ServerProcess, ServerProcess]:
    return await start_two(new_shared_server, REDIS_URL=redis_server.url, DRAIN_SECONDS="60")


async def test_a_device_on_another_instance_sees_every_word_as_it_comes(both: TwoServers) -> None:
    user, gate = await both.user(), both.gate()
    phone, laptop = await both.device(user, both.first), await both.device(user, both.second)
    message = await phone.say(f"GATE {gate} 2 3")
    await laptop.until(lambda: laptop.text(message).split() == ["w0", "w1"])
    late, turn_id = await both.device(user, both.second), laptop.transcript.turn_of[message]
    assert late.transcript.replies[turn_id].text.split() == ["w0", "w1"]
    status, agent = await both.call(both.second, user, "GET", "/agent/status")
    assert (status, agent["turn"]["text"].split()) == (200, ["w0", "w1"])
    await both.open(gate)
    ends = [await device.end_of(message) for device in (phone, laptop)]
    assert ends[0] == ends[1] == await late.until(lambda: late.transcript.replies[turn_id].turn)
    assert [d.transcript.replies[turn_id].text for d in (phone, laptop, late)] == ["w0 w1 w2 w3 w4"] * 3
    assert faultless(phone, laptop, late)


async def test_commands_of_a_device_on_another_instance_reach_the_owner(both: TwoServers) -> None:
    """Queueing, cancelling and retrying from an instance that does not own the session."""
    user, gate, later = await both.user(), both.gate(), both.gate()
    phone, laptop = await both.device(user, both.first), await both.device(user, both.second)
    running = await phone.say(f"GATE {gate} 1 2")
    await laptop.until(lambda: laptop.text(running).strip() == "w0")
    waiting, dropped = await laptop.say("ECHO behind it"), await laptop.say("ECHO never")
    await phone.until(lambda: {waiting, dropped} <= set(phone.transcript.turn_of))
    status, problem = await both.call(
        both.second, user, "PATCH", "/agent/memory/human", {"value": "Changed while a turn runs"}
    )
    assert (status, problem["code"]) == (409, "busy")
    await laptop.cancel(laptop.transcript.turn_of[dropped])
    assert (await phone.end_of(dropped))["status"] == "cancelled"
    await laptop.cancel(laptop.transcript.turn_of[running])
    cancelled = await phone.end_of(running)
    assert (cancelled["status"], cancelled["message"]["content"].strip()) == ("cancelled", "w0")
    assert (await laptop.end_of(waiting))["message"]["content"] == "behind it"
    await both.open(gate)
    await laptop.retry(laptop.transcript.turn_of[running])
    assert (await phone.end_of(running, 2))["message"]["content"] == "w0 w1 w2"
    urgent = await phone.say(f"GATE {later} 1 1")
    await laptop.until(lambda: laptop.text(urgent).strip() == "w0")
    instead = await laptop.say("ECHO instead", on_busy="interrupt")
    assert (await phone.end_of(urgent))["status"] == "cancelled"
    assert (await phone.end_of(instead))["message"]["content"] == "instead"
    await both.open(later)
    assert faultless(phone, laptop)
    assert await both.asked("never") == 0


async def test_a_message_posted_to_the_other_instance_is_answered_there_with_its_events(both: TwoServers) -> None:
    user, gate = await both.user(), both.gate()
    phone = await both.device(user, both.first)
    running = await phone.say(f"GATE {gate} 1 1")
    await phone.until(lambda: phone.text(running).strip() == "w0")
    body = {"content": "ECHO after it", "client_message_id": "posted"}
    async with user.http.post(f"{both.second.url}/api/v1/chat/message", json=body, headers=user.headers) as answer:
        assert answer.content_type == "text/event-stream"
        await phone.until(lambda: "posted" in phone.transcript.turn_of)
        await both.open(gate)
        lines = (await answer.text()).splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [events[0]["type"], events[-1]["type"]] == ["turn.queued", "turn.completed"]
    assert {event["turn_id"] for event in events} == {phone.transcript.turn_of["posted"]}
    assert "".join(event["text"] for event in events if event["type"] == "message.delta") == "after it"
    assert (await phone.end_of(running))["status"] == "completed"


async def test_a_user_cannot_read_or_stop_anothers_turn_on_any_instance(both: TwoServers) -> None:
    ada, eve, gate = await both.user(), await both.user(), both.gate()
    phone = await both.device(ada, both.first)
    spies = [await both.device(eve, both.first), await both.device(eve, both.second)]
    message = await phone.say(f"GATE {gate} 1 1")
    turn_id = await phone.until(lambda: phone.text(message) and phone.transcript.turn_of[message])
    for server in (both.first, both.second):
        for method, path, body in (
            ("POST", "/chat/cancel", {"turn_id": turn_id}),
            ("POST", f"/chat/turns/{turn_id}/retry", None),
            ("GET", f"/chat/turns/{turn_id}", None),
        ):
            assert (await both.call(server, eve, method, path, body))[0] == 404
    await both.open(gate)
    assert (await phone.end_of(message))["message"]["content"] == "w0 w1"
    own = await spies[0].say("ECHO mine")
    for spy in spies:
        await spy.until(lambda spy=spy: own in spy.transcript.turn_of)  # type: ignore[misc]
        assert turn_id not in spy.transcript.replies
    assert faultless(phone, *spies)


async def test_a_client_resumes_on_the_other_instance_from_its_cursor(both: TwoServers) -> None:
    user, gate = await both.user(), both.gate()
    steady, roaming = await both.device(user, both.first), await both.device(user, both.first, both.second)
    there = await both.device(user, both.second)
    message = await steady.say(f"GATE {gate} 2 3")
    for device in (roaming, there):  # what one instance has just delivered is on its way to the other
        await device.until(lambda device=device: device.text(message).split() == ["w0", "w1"])  # type: ignore[misc]
    async with user.http.ws_connect(
        f"{both.second.url}/api/v1/chat/stream", headers=user.headers, params={"after": str(roaming.transcript.cursor)}
    ) as socket:
        ready = await socket.receive_json()
        assert (ready["resumed"], ready["cursor"], ready["turn"]) == (True, roaming.transcript.cursor, None)
        await both.open(gate)
        text = ""
        while (frame := await asyncio.wait_for(socket.receive_json(), 60))["type"] != "turn.completed":
            text += frame.get("text", "")
    assert text == " w2 w3 w4"
    await roaming.end_of(message)
    assert faultless(steady, roaming, there)


async def test_a_repeated_message_on_another_instance_is_the_same_turn(both: TwoServers) -> None:
    user, gate = await both.user(), both.gate()
    body: Json = {"content": f"GATE {gate} 1 1", "client_message_id": "the-same", "stream": False}
    first = asyncio.create_task(both.call(both.first, user, "POST", "/chat/message", body))
    await both.stack.at_gate(both.http, gate)
    second = asyncio.create_task(both.call(both.second, user, "POST", "/chat/message", body))
    conflict = await both.call(both.second, user, "POST", "/chat/message", body | {"content": "something else"})
    assert (conflict[0], conflict[1]["code"]) == (409, "id_conflict")
    await both.open(gate)
    (status, turn), (other_status, other_turn) = await first, await second
    assert {status, other_status} <= {200, 202}  # 202: the turn outlasts the request
    assert turn["id"] == other_turn["id"]
    turn = await user.ended(turn["id"])
    assert (turn["status"], turn["attempt"], turn["message"]["content"]) == ("completed", 1, "w0 w1")
    assert await both.asked(gate) == 1


async def test_a_reply_survives_the_death_of_its_instance(both: TwoServers) -> None:
    """The user's other devices get `ready` and need not reconnect; no word comes twice."""
    user, gate = await both.user(), both.gate()
    phone, laptop = await both.device(user, both.first, both.second), await both.device(user, both.second)
    message = await phone.say(f"GATE {gate} 2 3")
    waiting = await phone.say("ECHO afterwards")
    await laptop.until(lambda: laptop.text(message).split() == ["w0", "w1"])
    await laptop.until(lambda: waiting in laptop.transcript.turn_of)
    both.first.kill()
    await both.open(gate)
    assert (await laptop.end_of(message))["message"]["content"] == "w0 w1 w2 w3 w4"
    assert (await phone.end_of(message))["status"] == (await phone.end_of(waiting))["status"] == "completed"
    assert (laptop.connections, laptop.transcript.epochs) == (1, 2)
    assert [d.text(message) for d in (phone, laptop)] == ["w0 w1 w2 w3 w4"] * 2
    assert faultless(phone, laptop)
    assert await both.asked(gate) == 1


async def test_steps_are_shown_on_another_instance_and_survive_the_death_of_their_owner(both: TwoServers) -> None:
    user, gate = await both.user(), both.gate()
    elsewhere = replace(user, url=both.second.url)
    async with elsewhere.connect() as laptop:
        async with user.connect() as phone:
            turn_id = (await phone.say(search(gate, f" THEN {gate}")))["turn_id"]
            for device in (laptop, phone):
                await device.wait_for(lambda frame: frame["type"] == "tool.returned")
            seen = steps_seen(phone, turn_id)
            assert [step["type"] for step in seen] == ["tool.called", "tool.returned"]
            async with elsewhere.connect() as late:
                assert late.ready["turn"]["steps"] == seen
        both.first.kill()
        again = await laptop.wait_for(lambda frame: frame["type"] == "ready")
        assert again["turn"]["steps"] == seen
        await both.open(gate)
        assert (await laptop.end_of(turn_id))["type"] == "turn.completed"
    assert (await elsewhere.get(f"/chat/turns/{turn_id}"))["message"]["steps"] == seen


async def test_a_deploy_hands_a_running_reply_over_at_once(
    stack: RunningStack, http: aiohttp.ClientSession, new_server: NewServer, redis_server: OwnRedis
) -> None:
    """The old instance has no time to finish it."""
    pair = await start_two(new_server, REDIS_URL=redis_server.url, DRAIN_SECONDS="0")
    async with two_servers(stack, http, pair) as both:
        user, gate = await both.user(), both.gate()
        phone, laptop = await both.device(user, both.first, both.second), await both.device(user, both.second)
        message = await phone.say(f"GATE {gate} 2 3")
        waiting = await phone.say("ECHO afterwards")
        await laptop.until(lambda: laptop.text(message).split() == ["w0", "w1"])
        both.first.terminate()
        assert await both.first.stopped() == 0
        await both.open(gate)
        await asyncio.gather(*(device.end_of(id_) for device in (phone, laptop) for id_ in (message, waiting)))
        assert [d.text(message) for d in (phone, laptop)] == ["w0 w1 w2 w3 w4"] * 2
        assert phone.closes[1012] >= 1  # again, if it comes back before the old instance has ended
        assert (laptop.connections, laptop.transcript.epochs) == (1, 1)
        assert faultless(phone, laptop)
        assert await both.asked(gate) == 1


async def test_a_rolling_restart_under_traffic_loses_nothing(both: TwoServers) -> None:
    """Both instances are replaced, one after the other, while three users send messages to both."""
    users = [await both.user() for _ in range(3)]
    devices = [
        (await both.device(user, both.first, both.second), await both.device(user, both.second, both.first))
        for user in users
    ]
    sent: dict[str, int] = {}
    run = both.gate()

    async def talk(number: int) -> None:
        phone, laptop = devices[number]
        for turn in range(6):
            message = await (phone, laptop)[turn % 2].say(f"SLOW 6 0.1 {run}-{number}-{turn}")
            sent[message] = number
            await asyncio.gather(phone.end_of(message), laptop.end_of(message))

    async def deploy() -> None:
        for server in (both.first, both.second):
            await server.restart()

    await asyncio.gather(deploy(), *(talk(number) for number in range(3)))
    for number, (phone, laptop) in enumerate(devices):
        assert faultless(phone, laptop)
        history = (await phone.get("/chat/history?limit=100"))["data"]
        assert [m["role"] for m in history] == ["assistant", "user"] * 7
        own = [message for message, owner in sent.items() if owner == number]
        assert [phone.text(m) for m in own] == [laptop.text(m) for m in own] == ["w0 w1 w2 w3 w4 w5"] * 6
    for number in range(3):
        for turn in range(6):
            assert await both.asked(f"{run}-{number}-{turn}") == 1
