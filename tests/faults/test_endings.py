"""SIGTERM while services do not answer: the server ends within its deadline, and no accepted message is lost."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.faults.failing_world import failing_world, unique
from tests.faults.fault_kinds import Hang
from tests.stack.own_redis import own_redis
from tests.stack.running_stack import RunningStack

SILENT: Final = ("supabase", "letta", "litellm", "redis")


@pytest.mark.parametrize("silent", [SILENT, *((name,) for name in SILENT)], ids="+".join)
async def test_a_server_ends_while_no_service_answers(
    stack: RunningStack, server_env: dict[str, str], tmp_path: Path, silent: tuple[str, ...]
) -> None:
    """Within DRAIN_SECONDS and ten seconds more; the timeout here is longer, for a busy machine, and shorter than what
    a silent Letta takes without a deadline of the server's own."""
    log = tmp_path / "server.log"
    with own_redis(stack, tmp_path) as redis:
        async with failing_world(stack, server_env, log, REDIS_URL=redis.url, DRAIN_SECONDS="0") as world:
            ada, text, gate = (await world.new_resident()).user, unique(), unique()
            async with ada.connect() as device:
                ack = await device.say(f"{text} GATE {gate} 2 1")
                await device.wait_for(lambda _: device.text_of(ack["turn_id"]).split() == ["w0", "w1"])
                with ExitStack() as silence:
                    for name in silent:
                        if name != "redis":
                            silence.enter_context(getattr(world, name).breaking(Hang()))
                    if "redis" in silent:
                        redis.freeze()
                        silence.callback(redis.thaw)
                    world.server.terminate()
                    async with asyncio.timeout(40):
                        code = await world.server.stopped()
            said = log.read_text("utf-8")
            assert ("server.stopped" in said, "server.hung" in said) == (code == 0, code != 0), said[-2000:]
            await world.stack.open_gate(world.http, gate)
            world.server.start()
            await world.server.ready()
            turn = await ada.ended(ack["turn_id"])
            assert (turn["status"], turn["message"]["content"]) == ("completed", "w0 w1 w2")
            assert await world.model_calls(text) == 1
