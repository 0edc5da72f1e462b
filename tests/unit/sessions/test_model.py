"""Whatever happens, in whatever order, the promises hold: Hypothesis plays with servers, devices and services.

MODEL_EXAMPLES and MODEL_STEPS make it play more, and longer, than there is time for otherwise.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, product
from typing import Any, Literal, TypeVar, cast, get_args
from unittest.mock import patch
from uuid import UUID

import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from server.ports import AgentEvent, RunStarted, TextDelta, ToolCalled, ToolReturned
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import OnBusy
from tests.fakes.agent import MODEL_FAILED, Reply, Tool
from tests.unit.sessions.invariants import broken_now, brought_to_an_end
from tests.unit.sessions.simulation import DatabaseMode, Server, Simulation
from tests.unit.sessions.world import SPOKEN
from tests.virtual_time import VirtualTimeLoop

T = TypeVar("T")
EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "200"))
STEPS = int(os.environ.get("MODEL_STEPS", "30"))


@dataclass(frozen=True, slots=True)
class Chapters(Reply):
    """A reply of two messages with a tool call between them."""

    @property
    def text(self) -> str:
        return "".join((*self.words, "\n\n", *self.words))

    def steps(self, run_id: str) -> Iterator[tuple[float, AgentEvent]]:
        yield 0.0, RunStarted(run_id)
        for chapter in (1, 2):
            for word in self.words:
                yield self.per_word, TextDelta(f"{run_id}-message-{chapter}", word)
            yield self.per_word, ToolCalled(f"{run_id}-call-{chapter}", "search", "{}")
            yield 0.0, ToolReturned(f"{run_id}-call-{chapter}", "search", "success")


REPLIES: dict[str, Reply] = {
    "plain": SPOKEN,
    "quick": Reply(words=("Yes.",)),
    "long": Reply(words=("long ",) * 40, per_word=0.2),
    "slow": Reply(words=("slow ",) * 6, per_word=3.0, reasoning=("hm ",)),
    "chapters": Chapters(words=("some ", "words "), per_word=0.3),
    "fails late": Reply(SPOKEN.words, tools=(Tool("search", status="error"),), error=MODEL_FAILED, per_word=0.1),
    "fails": Reply(words=(), error=MODEL_FAILED, first_token=0.2),
    "stuck": Reply(words=("forever ",), stuck=True, per_word=0.1),
    "stuck and deaf": Reply(words=("forever ",), stuck=True, deaf=True, per_word=0.1),
    "deaf": Reply(SPOKEN.words, deaf=True, first_token=0.5, per_word=0.3),
    "away": Reply(refusal=PlatformError(ErrorCode.LETTA_UNAVAILABLE, retry_after=5.0)),
    "unpaid": Reply(refusal=PlatformError(ErrorCode.BUDGET_EXCEEDED)),
}
for _after, _pace in product((0, 1, 3, 6), (0.0, 0.2)):
    REPLIES[f"breaks after {_after} at {_pace}"] = Reply(
        SPOKEN.words, first_token=_pace, per_word=_pace, breaks_after=_after
    )
Use = Literal["join", "cursor", "none", "old", "go_offline", "come_online", "doze", "awake"]
USES: tuple[Use, ...] = get_args(Use)
ANY, USER = st.integers(0, 5), st.integers(0, 1)
MOMENT = st.sampled_from([0.0, 0.0005, 0.001, 0.004, 0.0055, 0.02, 0.15, 0.6])
WHILE = st.sampled_from([0.01, 0.1, 0.3, 0.3, 1.0, 1.0, 3.0, 9.0, 14.0])  # a lease lasts 12 s


class Sessions(RuleBasedStateMachine):
    """See the module. Every rule is played on a loop of its own time that lives as long as the machine."""

    def __init__(self) -> None:
        super().__init__()
        self._exits = ExitStack()
        self._noise = self._exits.enter_context(structlog.testing.capture_logs())
        ids = count(1)
        self._exits.enter_context(patch("uuid.uuid4", lambda: UUID(int=next(ids))))  # a failure can be played again
        self._runner = self._exits.enter_context(asyncio.Runner(loop_factory=VirtualTimeLoop))
        self._is_broken = False

    @initialize(
        latency=st.sampled_from([0.0, 0.003]),
        places=st.sampled_from([1, 4]),
        kept=st.sampled_from([5, 60, 2_000]),
        servers=st.integers(1, 3),
        devices=st.integers(1, 3),
    )
    def begin(self, latency: float, places: int, kept: int, servers: int, devices: int) -> None:
        limits = Limits(running_turns=places, waiting_turns_per_user=3, log_events=kept)

        async def begin() -> Simulation:
            ground = Simulation(latency=latency, limits=limits)
            for _ in range(servers):
                if ground.may_start:
                    await ground.start()
            for number in range(devices):
                ground.join(number % 2)
            await asyncio.sleep(0.1)
            return ground

        self.ground = self._play(begin())

    def teardown(self) -> None:
        try:
            if not self._is_broken and hasattr(self, "ground"):
                self._play(brought_to_an_end(self.ground))
                assert not self._errors
        finally:
            if hasattr(self, "ground"):
                self._runner.run(self.ground.aclose())
            self._exits.close()

    @property
    def _errors(self) -> list[Any]:
        """What the server itself took for a defect."""
        return [entry for entry in self._noise if entry["log_level"] == "error"]

    def _play(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(work)
        except BaseException:
            self._is_broken = True
            raise

    def _do(self, what: Callable[[], object], moment: float = 0.0) -> None:
        """Let it happen, and let a moment pass."""

        async def do() -> None:
            what()
            await asyncio.sleep(moment)

        self._play(do())

    def _on(self, place: int, what: Callable[[Server], object], moment: float = 0.0, *, frozen: bool = False) -> None:
        """Let it happen on one of the servers, if any is there."""
        server = self.ground.server(place, frozen=frozen)
        if server is not None:
            self._do(lambda: what(server), moment)

    @invariant()
    def the_promises_hold(self) -> None:
        if hasattr(self, "ground") and not self._is_broken:
            self._play(self._check())

    async def _check(self) -> None:
        broken = [*broken_now(self.ground), *map(str, self._errors)]
        assert not broken, "\n".join(broken)

    # -- servers -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.ground.may_start)
    @rule()
    def start(self) -> None:
        self._play(self.ground.start())

    @rule(
        place=ANY,
        how=st.sampled_from(["freeze", "kill", "deploy"]),
        crossings=st.integers(0, 12),
        seconds=WHILE,
        again=st.sampled_from([True, True, False]),
        moment=MOMENT,
    )
    def stop(self, place: int, how: str, crossings: int, seconds: float, again: bool, moment: float) -> None:
        """What stops a server, for a while or for good, now or soon; and whether another takes its place."""
        happenings: dict[str, Callable[[Server], None]] = {
            "freeze": lambda server: self.ground.freeze(server, seconds),
            "kill": self.ground.kill,
            "deploy": lambda server: self.ground.deploy(server, seconds),
        }
        what = happenings[how]
        if crossings and how != "deploy":
            self._on(place, lambda server: self.ground.soon(server, crossings, what), moment)
        else:
            self._on(place, what, moment, frozen=how == "kill")
        if again and self.ground.may_start:
            self._play(self.ground.start())

    # -- clients -------------------------------------------------------------------------------------------------

    @rule(user=USER, device=ANY, what=st.sampled_from(USES), place=ANY, moment=MOMENT)
    def device(self, user: int, device: int, what: Use, place: int, moment: float) -> None:
        """A device joins, drops its connection and comes back with a cursor of some kind, or is used in other ways."""
        devices = self.ground.devices
        if what == "join" or not devices:
            if len(devices) < 4:
                self._do(lambda: self.ground.join(user), moment)
            return
        one = devices[device % len(devices)]
        if what in ("cursor", "none", "old"):
            self._do(lambda: one.drop(what, place), moment)
        else:
            self._do(getattr(one, what), moment)

    @rule(place=ANY, user=USER, on_busy=st.sampled_from(["enqueue", "enqueue", "reject", "interrupt"]), moment=MOMENT)
    def send(self, place: int, user: int, on_busy: OnBusy, moment: float) -> None:
        self._on(place, lambda server: self.ground.send(server, user, on_busy), moment)

    @rule(place=ANY, user=USER, reply=st.sampled_from([*REPLIES]), moment=MOMENT)
    def send_for(self, place: int, user: int, reply: str, moment: float) -> None:
        """Send a message to which the agent has something special to say."""
        self.ground.plan(REPLIES[reply])
        self._on(place, lambda server: self.ground.send(server, user, "enqueue"), moment)

    @precondition(lambda self: self.ground.sent)
    @rule(place=ANY, which=ANY, moment=MOMENT)
    def send_again(self, place: int, which: int, moment: float) -> None:
        sent = self.ground.sent[-1 - which % len(self.ground.sent)]
        self._on(place, lambda server: self.ground.send_again(server, sent, "enqueue"), moment)

    @rule(place=ANY, user=USER, which=st.none() | ANY, moment=MOMENT)
    def cancel(self, place: int, user: int, which: int | None, moment: float) -> None:
        turn_id = None if which is None else self.ground.turn_of(user, which, open_=True)
        self._on(place, lambda server: self.ground.cancel(server, user, turn_id), moment)

    @rule(place=ANY, user=USER, which=ANY, moment=MOMENT)
    def retry(self, place: int, user: int, which: int, moment: float) -> None:
        if (turn_id := self.ground.turn_of(user, which, open_=False)) is not None:
            self._on(place, lambda server: self.ground.retry(server, user, turn_id), moment)

    @rule(
        place=ANY, user=USER, what=st.sampled_from(["wait", "alone", "agent"]), which=ANY, seconds=WHILE, moment=MOMENT
    )
    def ask(self, place: int, user: int, what: str, which: int, seconds: float, moment: float) -> None:
        """Wait for a turn's end; do something that no turn may run beside; tell where the agent stands."""
        ground, turn_id = self.ground, self.ground.turn_of(user, which, open_=True)
        if what == "alone":
            self._on(place, lambda server: ground.while_idle(server, user), moment)
        elif what == "agent":
            self._on(place, lambda server: ground.tell_agent(server, user), moment)
        elif turn_id is not None:
            self._on(place, lambda server: ground.wait_for_end(server, user, turn_id, seconds), moment)

    # -- services ------------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(["agent away", "agent killed", "unreached", "unanswered", "flaky", "slow"]),
        seconds=WHILE,
        moment=MOMENT,
    )
    def service(self, what: str, seconds: float, moment: float) -> None:
        """The agent's service or the database is away for a while, or slow."""
        if what.startswith("agent"):
            self._do(lambda: self.ground.agent_away(seconds, killed=what == "agent killed"), moment)
        else:
            self._do(lambda: self.ground.database_away(cast("DatabaseMode", what), seconds), moment)

    @precondition(lambda self: self.ground.world.broker)
    @rule(what=st.sampled_from(["save", "crash", "full", "forget", "cut"]), seconds=WHILE, place=ANY, moment=MOMENT)
    def broker(self, what: str, seconds: float, place: int, moment: float) -> None:
        """The relay's broker loses its connections, its memory or its room."""
        broker = self.ground.world.broker
        assert broker is not None
        happenings: dict[str, Callable[[], object]] = {
            "save": broker.save,
            "crash": lambda: self.ground.broker_crashes(seconds),
            "full": lambda: self.ground.broker_full(seconds),
            "forget": lambda: self.ground.broker_forgets(place % 2),
            "cut": lambda: self.ground.cut_link(place),
        }
        self._do(happenings[what], moment)

    @rule(seconds=st.sampled_from([0.02, 0.05, 0.1, 0.2, 0.5, 1.0]))
    def a_moment_passes(self, seconds: float) -> None:
        self._play(asyncio.sleep(seconds))

    @rule(seconds=st.sampled_from([3.0, 7.0, 13.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self._play(asyncio.sleep(seconds))


def test_whatever_happens_the_promises_hold() -> None:
    run_state_machine_as_test(
        Sessions,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
