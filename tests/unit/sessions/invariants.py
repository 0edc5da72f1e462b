"""What must hold whatever happens to sessions: at every moment, and in the end, when everything is back."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Turn, TurnStatus
from tests.fakes.agent import FakeRun
from tests.fakes.database import LEASE
from tests.unit.sessions.device import Device
from tests.unit.sessions.simulation import Simulation
from tests.unit.sessions.world import TOKENS
from tests.virtual_time import now

_TURNS_END = 5_000.0
"""Seconds until the last turn has ended: eight may wait in line for one place, each for as long as a turn may take."""
_ALL_IS_TOLD = 60.0
"""Seconds from then until every device knows and nobody holds a lease."""


def broken_now(ground: Simulation) -> Iterator[str]:
    """What does not hold at this moment."""
    yield from ground.failures
    for user_id in ground.users:
        running = [turn.id for turn in ground.world.turns(user_id) if turn.status is TurnStatus.RUNNING]
        if len(running) > 1:
            yield f"{running} run at once"
        for turn in ground.world.turns(user_id):
            yield from _broken_of_turn(ground, turn)


def _broken_of_turn(ground: Simulation, turn: Turn) -> Iterator[str]:
    content = turn.user_message.content
    runs = [run for run in ground.world.gateway.sent if run.messages[-1].content == content]
    late = sum(server.process.gateway.late.count(content) for server in ground.servers)
    if len(runs) > turn.attempt + late:
        yield f"{content} was sent {len(runs)} times in {turn.attempt} attempts"
    completed = [run for run in runs if run.status == "completed"]
    tokens = turn.usage.total_tokens if turn.usage else 0
    if tokens % TOKENS or tokens > TOKENS * len(completed):
        yield f"{content} cost {tokens} tokens for {len(completed)} completed runs"
    if turn.status is TurnStatus.CANCELLED and turn.cancel_requested_at is None:
        yield f"{content} is cancelled, and nobody asked for it"
    if turn.status is TurnStatus.FAILED and not _may_fail(ground, turn, runs):
        yield f"{content} failed without a reason: {turn.error}"
    if turn.status is TurnStatus.COMPLETED:
        yield from _broken_of_completed(turn, completed, tokens)


def _may_fail(ground: Simulation, turn: Turn, runs: list[FakeRun]) -> bool:
    began = turn.started_at or turn.created_at
    planned = any(run.reply.error or run.reply.stuck or run.reply.deaf for run in runs)
    return planned or _moment(began) <= ground.failing_until


def _moment(moment: datetime) -> float:
    """The loop's time at a moment by the wall clock."""
    return asyncio.get_running_loop().time() - (now() - moment).total_seconds()


def _broken_of_completed(turn: Turn, runs: list[FakeRun], tokens: int) -> Iterator[str]:
    reply = turn.message.content if turn.message else None
    if reply not in [run.reply.text for run in runs]:
        yield f"{turn.user_message.content} completed with {reply!r}, which no run said"
    if tokens == 0:
        yield f"{turn.user_message.content} completed at no charge"


async def brought_to_an_end(ground: Simulation) -> None:
    """Bring everything back and wait until all is quiet. Raises AssertionError with what does not hold then."""
    ground.call_off()
    ground.database_back()
    ground.agent_back()
    ground.broker_has_room()
    ground.broker_back()
    for server in ground.servers:
        ground.thaw(server)
    if ground.server(0) is None:
        await ground.start()
    for device in ground.devices:
        device.awake()
        device.come_online()
    await _quiet(lambda: list(_unfinished(ground)), _TURNS_END)
    await _quiet(lambda: list(_untold(ground)), _ALL_IS_TOLD)
    await asyncio.sleep(_ALL_IS_TOLD)
    broken = [*broken_now(ground), *_untold(ground), *_missed(ground), *_uncounted(ground)]
    assert not broken, "\n".join(broken)
    await _newcomers_see_nothing_open(ground)
    await _life_goes_on(ground)


async def _quiet(what_is_left: Callable[[], list[str]], seconds: float) -> None:
    until = asyncio.get_running_loop().time() + seconds
    while left := what_is_left():
        assert asyncio.get_running_loop().time() < until, "\n".join(left)
        await asyncio.sleep(1.0)


def _unfinished(ground: Simulation) -> Iterator[str]:
    for user_id in ground.users:
        for turn in ground.world.turns(user_id):
            if not turn.status.ended:
                yield f"{turn.user_message.content} is {turn.status} for ever"
    for server in ground.servers:
        if server.is_alive and server.is_leaving:
            yield f"{server.process.name} does not come to its end"
    if ground.errands:
        yield f"{ground.errands} requests are not answered"


def _untold(ground: Simulation) -> Iterator[str]:
    """What devices, leases and places do not yet show of everything having ended."""
    for device in ground.devices:
        if device.attachment is None:
            yield f"device {device.name} is not connected"
        elif not device.is_blank:
            yield f"device {device.name} shows {device.running} running and {device.waiting} waiting"
    for user_id in ground.users:
        row = ground.world.database.sessions.get(user_id)
        if row is not None and row.owner is not None and row.heartbeat_at > now() - LEASE:
            yield f"{row.owner} holds the lease of a user who has nothing open"
    for server in ground.servers:
        hub = server.process.hub
        if server.is_alive and (hub.admission.running or hub.admission.waiting):
            yield f"{server.process.name} has {hub.admission.running} places taken, {hub.admission.waiting} in line"
        if server.is_alive and (tasks := len(hub._tasks)):
            yield f"{server.process.name} still has {tasks} tasks"


def _missed(ground: Simulation) -> Iterator[str]:
    """Ends of replies that came while a device was there, and that it was not told.

    A message that never ran may be cancelled before anybody was told that it waits: whoever asks for it is told.
    """
    for device in ground.devices:
        for turn in ground.world.turns(device.user_id):
            assert turn.finished_at is not None
            is_due = _moment(turn.finished_at) > max(device.greeted_at, ground.deaf_until)
            ran = turn.started_at is not None and turn.finished_at != turn.cancel_requested_at
            if is_due and ran and (turn.id, turn.attempt) not in device.ends:
                yield f"device {device.name} was never told how {turn.user_message.content} ended"


def _uncounted(ground: Simulation) -> Iterator[str]:
    for user_id in ground.users:
        turns = ground.world.turns(user_id)
        tokens = sum(turn.usage.total_tokens for turn in turns if turn.usage)
        if ground.world.charged(user_id) != tokens:
            yield f"{ground.world.charged(user_id)} tokens were charged, {tokens} are in the turns"
    for sent in ground.sent:
        turns = [turn for turn in ground.world.turns(sent.user_id) if turn.client_message_id == sent.message_id]
        if len(turns) > 1 or [sent.turn_id] not in ([None], [turn.id for turn in turns]):
            yield f"{sent.message_id} was accepted as {sent.turn_id} and is {[turn.id for turn in turns]}"
        if turns and sent.turn_id is None and not sent.unsure:
            yield f"{sent.message_id} was refused, and is stored"


async def _newcomers_see_nothing_open(ground: Simulation) -> None:
    """Where the last owner took the news of an end with it, a newcomer is what makes somebody look at the rows."""
    for server in ground.servers:
        for user_id in ground.users if server.serves else ():
            device = Device()
            session = (await device.join(server.process.hub, user_id)).session
            await asyncio.sleep(2.0)
            shown = session.snapshot()
            assert (shown.running, shown.queued) == (None, ()), f"{server.process.name} shows {shown}"
            device.leave()


async def _send_a_last_one(ground: Simulation, user_id: str, place: int, content: str) -> None:
    server = ground.server(place)
    assert server is not None
    while True:
        try:
            await server.process.send(user_id, content, message_id=content)
        except PlatformError as refusal:
            if refusal.code is not ErrorCode.OVERLOADED:  # turns took long, as far as the server knows
                raise
            await asyncio.sleep(1.0)
        else:
            return


async def _life_goes_on(ground: Simulation) -> None:
    """Whatever happened: the next messages, sent to any process, are answered, and every device reads every word."""
    ground.world.gateway.plan_nothing()
    for user, user_id in enumerate(ground.users):
        for place in range(2):
            await _send_a_last_one(ground, user_id, place, f"last {user} {place}")
    await _quiet(lambda: list(_unfinished(ground)), _ALL_IS_TOLD)
    await _quiet(lambda: list(_untold(ground)), _ALL_IS_TOLD)
    broken = list(broken_now(ground))
    for device in ground.devices:
        for turn in ground.world.turns(device.user_id)[-2:]:
            reply = ground.world.reply_of(turn.id)
            if turn.status is not TurnStatus.COMPLETED or device.streamed(turn.id) != reply or not reply:
                broken.append(f"device {device.name} read {device.streamed(turn.id)!r} of {turn.status} {reply!r}")
    assert not broken, "\n".join(broken)
