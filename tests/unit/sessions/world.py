"""Server processes around one database and one agent service, in virtual time, that freeze, thaw and die at will."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from decimal import Decimal
from itertools import count
from types import TracebackType
from typing import Self, TypeVar

from server.ports import Accepted, AgentEvent, AgentHandle, ControlMessage, Estimate, NewTurn, OutgoingMessage, Run
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import OnBusy, Turn, Usage
from server.sessions.events.logs import ReplicatedLogs
from server.sessions.events.snapshot import Cancelled
from server.sessions.hub import SessionHub
from server.sessions.maintenance import Rhythm
from server.sessions.turns.attempt import AttemptServices
from server.sessions.turns.run_recovery import Pauses
from tests.fakes.agent import FakeAgentGateway, Reply
from tests.fakes.database import MemoryDatabase
from tests.fakes.replicas import MemoryBroker, MemoryReplicas
from tests.fakes.store import FakeSessionStore
from tests.unit.sessions.device import Device
from tests.virtual_time import now

T = TypeVar("T")
SPOKEN = Reply(words=("One ", "two ", "three ", "four."), first_token=0.5, per_word=0.1)
TOKENS = 110
"""What every completed reply of the fake agent reports, and so what a user is charged for each."""
_PRICE = Decimal("0.0001")
_LIMITS, _PAUSES, _RHYTHM = Limits(), Pauses(), Rhythm()
SHARED: ContextVar[bool] = ContextVar("shared", default=False)
"""Whether worlds have a broker, unless they are told."""


class Boundary:
    """Where a process meets the world. Frozen, it does and learns nothing more, as after SIGSTOP or SIGKILL."""

    def __init__(self, freeze_at: int | None = None) -> None:
        self.crossings = 0
        self.frozen = asyncio.Event()
        self._freeze_at = freeze_at
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._gone = False

    async def cross(self) -> None:
        self.crossings += 1
        if self.crossings == self._freeze_at:
            self.freeze()
        await self._flowing.wait()
        if self._gone:
            raise PlatformError(ErrorCode.INTERNAL_ERROR, "this process is dead")

    def freeze_after(self, crossings: int) -> None:
        self._freeze_at = self.crossings + crossings

    def freeze(self) -> None:
        self._freeze_at = None
        self._flowing.clear()
        self.frozen.set()

    def thaw(self) -> None:
        self.frozen.clear()
        self._flowing.set()

    def bury(self) -> None:
        """Let what hangs here end, having changed nothing."""
        self._gone = True
        self.thaw()


class ProcessStore(FakeSessionStore):
    """The shared database as one process reaches it."""

    def __init__(self, database: MemoryDatabase, boundary: Boundary) -> None:
        super().__init__(database)
        self._boundary = boundary

    async def _apply(self, operation: str, change: Callable[[], T]) -> T:
        await self._boundary.cross()
        result = await super()._apply(operation, change)
        await self._boundary.cross()
        return result


class ProcessGateway:
    """The shared agent service as one process reaches it. The next call of `fail_once` finds it away.

    `late` are the messages that were on their way out while the process was frozen: no check of ours can stop those.
    """

    def __init__(self, gateway: FakeAgentGateway, boundary: Boundary) -> None:
        self.fail_once: str | None = None
        self.late: list[str] = []
        self._gateway = gateway
        self._boundary = boundary

    async def _reach(self, operation: str) -> None:
        await self._boundary.cross()
        if self.fail_once == operation:
            self.fail_once = None
            raise PlatformError(ErrorCode.LETTA_UNAVAILABLE)

    @asynccontextmanager
    async def send(
        self, agent: AgentHandle, messages: Sequence[OutgoingMessage]
    ) -> AsyncIterator[AsyncIterator[AgentEvent]]:
        if self._boundary.frozen.is_set():
            self.late.append(messages[-1].content)
        await self._boundary.cross()
        async with self._gateway.send(agent, messages) as events:
            await self._boundary.cross()
            yield self._each(events)

    async def _each(self, events: AsyncIterator[AgentEvent]) -> AsyncIterator[AgentEvent]:
        async for event in events:
            await self._boundary.cross()
            yield event

    async def cancel(self, agent: AgentHandle, run_id: str | None) -> None:
        await self._boundary.cross()
        await self._gateway.cancel(agent, run_id)
        await self._boundary.cross()

    async def run(self, agent: AgentHandle, run_id: str) -> Run | None:
        await self._reach("run")
        return await self._gateway.run(agent, run_id)

    async def runs_within(self, agent: AgentHandle, seconds: float) -> list[Run]:
        await self._reach("runs_within")
        return await self._gateway.runs_within(agent, seconds)

    async def reply(self, agent: AgentHandle, run_id: str) -> list[AgentEvent]:
        await self._reach("reply")
        return await self._gateway.reply(agent, run_id)


class Agents:
    """Every user's agent is there at once, or after `delay` seconds, or refused with `refusal`. `refused_keys` are the
    users whose keys were said to be refused, `gone` the agents that were not known, in order; such a user gets
    `replacement`, if there is one."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.refusal: Exception | None = None
        self.refused_keys: list[str] = []
        self.gone: list[AgentHandle] = []
        self.replacement: AgentHandle | None = None
        self.introduced: list[str] = []
        self.prefetched: list[str] = []

    def prefetch(self, user_id: str) -> None:
        self.prefetched.append(user_id)

    async def ready(self, user_id: str, *, timeout: float) -> AgentHandle:
        if self.delay > timeout:
            await asyncio.sleep(timeout)
            raise PlatformError(ErrorCode.AGENT_UNAVAILABLE)
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.refusal is not None:
            raise self.refusal
        return self.replacement if self.replacement and self.gone else agent_of(user_id)

    async def find_or_replace(self, user_id: str, gone: AgentHandle, *, timeout: float) -> AgentHandle:
        self.gone.append(gone)
        return await self.ready(user_id, timeout=timeout)

    async def sync_name(self, user_id: str) -> None:
        self.introduced.append(user_id)

    def key_refused(self, user_id: str) -> None:
        self.refused_keys.append(user_id)


class Prices:
    """One price for every token, unless it is not `known`."""

    def __init__(self) -> None:
        self.known = True

    async def estimate(self, usage: Usage) -> Estimate:
        return Estimate("gpt-4", usage.total_tokens * _PRICE if self.known else None)


def message(user_id: str, content: str, message_id: str, on_busy: OnBusy = "enqueue") -> NewTurn:
    return NewTurn(user_id, message_id, content, hashlib.sha256(content.encode()).hexdigest(), on_busy)


def agent_of(user_id: str) -> AgentHandle:
    return AgentHandle(f"member-{user_id}", f"agent-{user_id}", f"conversation-{user_id}")


class Process:
    """One server process: a hub behind its boundary."""

    def __init__(self, world: "World", name: str, freeze_at: int | None) -> None:
        self.name = name
        self.world = world
        self.boundary = Boundary(freeze_at)
        self.gateway = ProcessGateway(world.gateway, self.boundary)
        self._ids = count(1)
        services = AttemptServices(
            store=ProcessStore(world.database, self.boundary),
            gateway=self.gateway,
            agents=world.agents,
            pricing=world.prices,
            limits=world.limits,
            pauses=world.pauses,
            now=now,
        )
        logs = None
        if world.broker is not None:
            logs = ReplicatedLogs(MemoryReplicas(world.broker, self.boundary.cross), world.limits, now)
        self.on_message: Callable[[ControlMessage], None] | None = None
        self.hub = SessionHub(services, logs, world.rhythm, owner=name, on_message=self._received)
        self._stop = asyncio.Event()
        self._running = asyncio.Event()
        self._life = asyncio.create_task(self._live(), name=f"process-{name}")

    def _received(self, message: ControlMessage) -> None:
        if self.on_message is not None:
            self.on_message(message)

    async def _live(self) -> None:
        async with self.hub.running():
            self._running.set()
            await self._stop.wait()

    async def started(self) -> Self:
        await self._running.wait()
        return self

    async def device(self, user_id: str) -> Device:
        """A device that joins the user's session now."""
        device = Device()
        await device.join(self.hub, user_id)
        return device

    async def send(
        self, user_id: str, content: str, *, message_id: str | None = None, on_busy: OnBusy = "enqueue"
    ) -> Accepted:
        return await self.hub.send(message(user_id, content, message_id or f"{self.name}-{next(self._ids)}", on_busy))

    async def retry(self, user_id: str, turn_id: str) -> Accepted:
        return await self.hub.retry(user_id, turn_id)

    async def cancel(self, user_id: str, turn_id: str | None = None) -> Cancelled:
        return await self.hub.cancel(user_id, turn_id)

    def kill(self) -> None:
        """As kill -9: nothing more comes out of it, nothing is tidied up."""
        self.boundary.freeze()

    async def stop(self) -> None:
        """As SIGTERM, after its drain."""
        self._stop.set()
        await self._life

    async def bury(self) -> None:
        self.boundary.bury()
        self._life.cancel()
        with suppress(asyncio.CancelledError, PlatformError):
            await self._life


class World:
    """Use as `async with World() as world:`. `shared`: the processes read each other's events through a broker.

    Where a test does not say, it is played both ways, see conftest.py.
    """

    def __init__(
        self,
        *,
        limits: Limits = _LIMITS,
        pauses: Pauses = _PAUSES,
        rhythm: Rhythm = _RHYTHM,
        reply: Reply = SPOKEN,
        shared: bool | None = None,
    ) -> None:
        self.broker = MemoryBroker() if (SHARED.get() if shared is None else shared) else None
        self.limits = limits
        self.pauses = pauses
        self.rhythm = rhythm
        self.database = MemoryDatabase(clock=now)
        self.gateway = FakeAgentGateway(answer=lambda _: reply, pace=asyncio.sleep, now=now)
        self.agents = Agents()
        self.prices = Prices()
        self._processes: list[Process] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.before = self.database.after = None
        for process in self._processes:
            await process.bury()
        await self.gateway.aclose()

    def user(self) -> str:
        """Somebody who signed up and was let in, which made the account."""
        user_id = self.database.sign_up()
        self.database.profile(user_id)
        return user_id

    async def process(self, name: str = "a", *, freeze_at: int | None = None) -> Process:
        process = Process(self, name, freeze_at)
        self._processes.append(process)
        return await process.started()

    # What the outside world remembers

    def turn(self, turn_id: str) -> Turn:
        return self.database.turns[turn_id].turn

    def turns(self, user_id: str) -> list[Turn]:
        return [row.turn for row in self.database.of_user(user_id)]

    def reply_of(self, turn_id: str) -> str:
        """The stored reply."""
        message = self.turn(turn_id).message
        return message.content if message else ""

    def sends(self, content: str) -> int:
        """How often the agent was sent this message as the new one, and so how often it was charged."""
        return sum(run.messages[-1].content == content for run in self.gateway.sent)

    def charged(self, user_id: str) -> int:
        """The tokens in the user's daily metrics."""
        return sum(day.tokens for (owner, _), day in self.database.days.items() if owner == user_id)

    def owner(self, user_id: str) -> str | None:
        row = self.database.sessions.get(user_id)
        return row.owner if row else None
