"""Everything that can happen to sessions: clients that come, ask and go, and servers, services and links that fail.

Nothing here decides anything: a test says what happens next. What must hold whatever happens is in invariants.py.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Limits
from server.protocol.shapes import AgentStatus, OnBusy, TurnStatus
from tests.fakes.agent import Reply
from tests.unit.sessions.client_model import ClientModel
from tests.unit.sessions.world import Process, World, message

DatabaseMode = Literal["unreached", "unanswered", "flaky", "slow"]
REFUSED = frozenset({ErrorCode.BUSY, ErrorCode.QUEUE_FULL, ErrorCode.OVERLOADED, ErrorCode.RATE_LIMITED})
"""With these nothing was stored and the id is still free."""
_UNSURE = frozenset({ErrorCode.DRAINING, ErrorCode.SUPABASE_UNAVAILABLE, ErrorCode.EVENTS_UNAVAILABLE})
_OF_TURNS = frozenset({ErrorCode.NOT_FOUND, ErrorCode.NOT_RETRYABLE})
_CLIENT_PATIENCE = 20.0
_LONG_WITHOUT_OWNER = 100.0
MENDED_SECONDS = 30.0
"""How long after a fault the traces of it may show: a lease runs out, somebody looks, connections are made anew."""


@dataclass(slots=True)
class Sent:
    """One message of a client, sent under one id as often as it takes. `unsure`: an answer may have been lost."""

    user_id: str
    message_id: str
    content: str
    turn_id: str | None = None
    unsure: bool = False


@dataclass(slots=True)
class Server:
    """A process and what is being done to it."""

    process: Process
    is_alive: bool = True
    is_leaving: bool = False
    freezes: int = 0

    @property
    def is_frozen(self) -> bool:
        return self.process.boundary.frozen.is_set()

    @property
    def serves(self) -> bool:
        return self.is_alive and not self.is_leaving and not self.is_frozen


class Simulation:
    """A world with two users. `latency`: seconds that each call of the database takes on its way, and again back."""

    def __init__(self, *, latency: float, limits: Limits) -> None:
        self.world = World(limits=limits)
        self.latency = latency
        self.servers: list[Server] = []
        self.devices: list[ClientModel] = []
        self.sent: list[Sent] = []
        self.failures: list[str] = []
        self.numbered: dict[tuple[str, int], dict[str, Any]] = {}
        self.failing_until = self.deaf_until = self.cut_until = 0.0
        """Until when turns that begin may fail, because of the agent's service or because nobody was there for long;
        processes could not always hear each other; and one may have taken its last words to the others with it."""
        self.users = [self.world.user(), self.world.user()]
        self.world.database.before, self.world.database.after = self._before, self._after
        self._database_mode: DatabaseMode | None = None
        self._unserved_since = asyncio.get_running_loop().time()
        self._names, self._numbers, self._flakes, self._choices = count(1), count(1), count(), count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._deploys: list[asyncio.Task[None]] = []
        self._plots: list[asyncio.Task[None]] = []

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def errands(self) -> int:
        """How many requests of clients are still under way."""
        return len(self._tasks)

    async def aclose(self) -> None:
        for device in self.devices:
            await device.aclose()
        await self.world.__aexit__(None, None, None)
        unfinished = [*self._tasks, *self._deploys, *self._plots]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    # -- servers -------------------------------------------------------------------------------------------------

    def server(self, place: int, *, frozen: bool = False) -> Server | None:
        """One of those that serve, or that are at least not dead."""
        found = [one for one in self.servers if (one.is_alive and not one.is_leaving if frozen else one.serves)]
        return found[place % len(found)] if found else None

    @property
    def may_start(self) -> bool:
        """Without shared logs one process at a time is supported, but while a deploy overlaps."""
        most = 3 if self.world.broker is not None else 1
        return sum(one.is_alive and not one.is_leaving for one in self.servers) < most

    async def start(self) -> None:
        if self._unserved_since and self.now - self._unserved_since > _LONG_WITHOUT_OWNER:
            self.failing_until = self.now
        self.servers.append(Server(await self.world.process(f"p{next(self._names)}")))
        self._note_service()

    def kill(self, server: Server) -> None:
        server.is_alive = False
        self.cut_until = self.now + MENDED_SECONDS
        server.process.kill()
        for device in self.devices:
            if device.process is server.process and device.attachment is not None:
                device.drop("cursor")
        self._note_service()

    def freeze(self, server: Server, seconds: float) -> None:
        server.freezes += 1
        self.cut_until = max(self.cut_until, self.now + seconds + MENDED_SECONDS)
        server.process.boundary.freeze()
        self._later(seconds, lambda: self.thaw(server))

    def soon(self, server: Server, crossings: int, what: Callable[[Server], None]) -> None:
        """Let it happen to a process exactly when it will have met the outside world so many times more."""

        async def wait() -> None:
            await server.process.boundary.frozen.wait()
            if server.is_alive:
                what(server)

        server.process.boundary.freeze_after(crossings)
        self._plots.append(asyncio.create_task(wait()))

    def call_off(self) -> None:
        """Let nothing happen that was to happen soon."""
        for plot in self._plots:
            plot.cancel()
        for server in self.servers:
            server.process.boundary.freeze_after(-1)

    def thaw(self, server: Server) -> None:
        if server.is_alive and server.is_frozen:
            server.process.boundary.thaw()

    def deploy(self, server: Server, seconds: float) -> None:
        """As SIGTERM: drain, then stop. Without shared logs, who replaces it cannot hear it meanwhile."""
        server.is_leaving = True
        if self.world.broker is None:
            self._deafened(seconds)

        async def leave() -> None:
            await server.process.hub.drain(seconds)
            await server.process.stop()
            server.is_alive = False
            for device in self.devices:
                if device.process is server.process and device.attachment is not None:
                    self.failures.append(f"device {device.name} is still attached to a process that has stopped")

        self._deploys.append(asyncio.create_task(leave()))
        self._note_service()

    def _note_service(self) -> None:
        served = any(one.is_alive and not one.is_leaving for one in self.servers)
        self._unserved_since = 0.0 if served else self._unserved_since or self.now

    # -- clients -------------------------------------------------------------------------------------------------

    def join(self, user: int) -> None:
        name = f"d{next(self._names)}"
        self.devices.append(ClientModel(self, self.users[user], name))

    def choose(self) -> Process | None:
        """The process that a connection reaches now."""
        server = self.server(next(self._choices))
        return None if server is None else server.process

    def send(self, server: Server, user: int, on_busy: OnBusy) -> None:
        number = next(self._numbers)
        sent = Sent(self.users[user], f"m{number}", f"message {number}")
        self.sent.append(sent)
        self.send_again(server, sent, on_busy)

    def send_again(self, server: Server, sent: Sent, on_busy: OnBusy) -> None:
        async def send() -> None:
            new = message(sent.user_id, sent.content, sent.message_id, on_busy)
            accepted = await server.process.hub.send(new)
            if sent.turn_id not in (None, accepted.turn.id):
                self.failures.append(f"{sent.message_id} is turn {sent.turn_id} and turn {accepted.turn.id}")
            sent.turn_id = accepted.turn.id

        def refused(code: ErrorCode | None) -> None:
            sent.unsure = sent.unsure or code not in REFUSED

        self._ask(server, send, REFUSED, refused)

    def cancel(self, server: Server, user: int, turn_id: str | None) -> None:
        async def cancel() -> None:
            await server.process.cancel(self.users[user], turn_id)

        self._ask(server, cancel, _OF_TURNS)

    def retry(self, server: Server, user: int, turn_id: str) -> None:
        async def retry() -> None:
            await server.process.retry(self.users[user], turn_id)

        self._ask(server, retry, REFUSED | _OF_TURNS)

    def wait_for_end(self, server: Server, user: int, turn_id: str, seconds: float) -> None:
        async def wait() -> None:
            turn = await server.process.hub.wait_for_end(self.users[user], turn_id, seconds)
            if turn is not None and not turn.status.ended:
                self.failures.append(f"turn {turn_id} was reported as ended, and is {turn.status}")

        self._ask(server, wait, frozenset(), patience=seconds + _CLIENT_PATIENCE)

    def while_idle(self, server: Server, user: int) -> None:
        """Something that must not happen while a turn runs, such as clearing the conversation."""
        user_id, database = self.users[user], self.world.database

        async def alone() -> None:
            freezes = server.freezes
            for _ in range(3):
                if database.running(user_id) is not None and server.freezes == freezes:
                    self.failures.append("a turn runs in the middle of what wanted to be alone")
                await asyncio.sleep(0.03)

        async def while_idle() -> None:
            await server.process.hub.while_idle(user_id, alone)

        self._ask(server, while_idle, frozenset({ErrorCode.BUSY}))

    def tell_agent(self, server: Server, user: int) -> None:
        server.process.hub.agent_changed(self.users[user], AgentStatus.ACTIVE, None)

    def _ask(
        self,
        server: Server,
        request: Callable[[], Coroutine[Any, Any, None]],
        refusals: frozenset[ErrorCode],
        refused: Callable[[ErrorCode | None], None] = lambda _: None,
        patience: float = _CLIENT_PATIENCE,
    ) -> None:
        """A client's request, in the background. Nothing but a PlatformError that its endpoint knows may come of it."""

        async def ask() -> None:
            try:
                async with asyncio.timeout(patience):
                    await request()
            except TimeoutError:
                refused(None)
            except PlatformError as error:
                refused(error.code)
                if server.is_alive and error.code not in refusals | _UNSURE:
                    self.failures.append(f"{request.__name__} was refused with {error.code}")
            except Exception as error:
                refused(None)
                self.failures.append(f"{request.__name__} raised {error!r}")

        self._spawn(ask())

    # -- what fails ----------------------------------------------------------------------------------------------

    def plan(self, reply: Reply) -> None:
        """What the agent does with the next message."""
        if reply.refusal is not None:
            self.failing_until = math.inf
        self.world.gateway.plan(reply)

    def agent_away(self, seconds: float, *, killed: bool) -> None:
        self.failing_until = max(self.failing_until, self.now + seconds + 1.0)
        self.world.gateway.down = True
        if killed:
            self.world.gateway.kill()
        self._later(seconds, self.agent_back)

    def agent_back(self) -> None:
        self.world.gateway.down = False

    def database_away(self, mode: DatabaseMode, seconds: float) -> None:
        self._database_mode = mode
        self._later(seconds, self.database_back)

    def database_back(self) -> None:
        self._database_mode = None

    async def _before(self, _operation: str) -> None:
        if self._database_mode == "slow":
            await asyncio.sleep(1.5)
        elif self.latency:
            await asyncio.sleep(self.latency)
        if self._database_mode == "unreached" or (self._database_mode == "flaky" and next(self._flakes) % 3 == 0):
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    async def _after(self, _operation: str) -> None:
        if self._database_mode == "slow":
            await asyncio.sleep(1.5)
        elif self.latency:
            await asyncio.sleep(self.latency)
        if self._database_mode == "unanswered" or (self._database_mode == "flaky" and next(self._flakes) % 3 == 1):
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    def broker_crashes(self, seconds: float) -> None:
        assert self.world.broker is not None
        if self.world.broker.is_up:
            self._deafened(seconds)
            self.world.broker.crash()
            self._later(seconds, self.broker_back)

    def broker_full(self, seconds: float) -> None:
        assert self.world.broker is not None
        self._deafened(seconds)
        self.world.broker.is_full = True
        self._later(seconds, self.broker_has_room)

    def broker_back(self) -> None:
        if self.world.broker is not None and not self.world.broker.is_up:
            self.world.broker.start()

    def broker_has_room(self) -> None:
        if self.world.broker is not None:
            self.world.broker.is_full = False

    def broker_forgets(self, user: int) -> None:
        """A log has expired, or was evicted."""
        assert self.world.broker is not None
        self._deafened(0.0)
        self.world.broker.forget(self.users[user])

    def cut_link(self, place: int) -> None:
        """The connection of one process to the broker breaks."""
        assert self.world.broker is not None
        if backends := self.world.broker.backends:
            backends[place % len(backends)].cut()

    def _deafened(self, seconds: float) -> None:
        self.deaf_until = max(self.deaf_until, self.now + seconds + MENDED_SECONDS)

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, work)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what a test can choose from -----------------------------------------------------------------------------

    def turn_of(self, user: int, place: int, *, open_: bool) -> str | None:
        """One of the user's turns: of the open ones, or of those that can be retried."""
        turns = self.world.turns(self.users[user])
        wanted = [
            turn.id
            for turn in turns
            if (not turn.status.ended if open_ else turn.status.ended and turn.status is not TurnStatus.COMPLETED)
        ]
        return wanted[place % len(wanted)] if wanted else None
