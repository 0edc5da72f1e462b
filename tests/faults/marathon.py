"""Conversations over two servers that are killed, deployed and frozen at random moments.

Independent of pytest: the short run is a test, the long one a command.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Final, Literal

import aiohttp

from tests.faults.clients import Device, all_quiet
from tests.stack.chat_client import ChatUser, register
from tests.stack.own_server import ServerProcess

Disruption = Literal["kill", "deploy", "freeze", "blackout"]
TURN_TIMEOUT: Final = 240.0
"""Seconds within which a turn ends, whatever is done to the servers meanwhile."""
FIRST_TEXT_TIMEOUT: Final = 5.0
"""Seconds after which a reply is cancelled even without any text."""
HEARTBEAT: Final = 10.0
"""Seconds after which a device leaves a server that is frozen."""
FROZEN_SECONDS: Final = (13.0, 16.0)
"""Longer than a lease lasts: another server takes over, and the frozen one must detect that when it thaws."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a marathon. The same seed gives the same messages, disruptions and pauses."""

    users: int
    turns: int
    disruptions: int
    seed: int
    kinds: tuple[Disruption, ...] = ("kill",)


@dataclass(frozen=True, slots=True)
class Line:
    """One message of the script. `cancelled`: it is stopped from another device once the reply has begun."""

    content: str
    cancelled: bool = False


@dataclass(slots=True)
class Talker:
    """A user with one device per preferred server, and the sent messages: id and line."""

    user: ChatUser
    devices: tuple[Device, ...]
    sent: dict[str, Line] = field(default_factory=dict)


def script(plan: Plan, chance: random.Random) -> list[Line]:
    """Messages of mixed length, each with a text of its own."""
    lines = []
    for number in range(plan.turns):
        kind = chance.random()
        if kind < 0.35:
            line = Line(f"ECHO the answer to question {number}, at once")
        elif kind < 0.75:
            line = Line(f"SLOW {chance.randrange(10, 40)} 0.{chance.randrange(5, 25):02} question {number}")
        elif kind < 0.9:
            line = Line(f"Please remember that my lucky number {number} is {chance.randrange(1000)}.")
        else:
            line = Line(f"SLOW 400 0.2 question {number}", cancelled=True)
        lines.append(line)
    return lines


class Marathon:
    """Use as `async with Marathon(…) as marathon: await marathon.run()`; its devices stay connected until then."""

    def __init__(
        self,
        plan: Plan,
        http: aiohttp.ClientSession,
        servers: Sequence[ServerProcess],
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.plan = plan
        self.talkers: list[Talker] = []
        self.disruptions: Counter[Disruption] = Counter()
        self.record: list[str] = []
        """The disruptions and retries, in order; `report` is called with each."""
        self._report = report
        self._http = http
        self._servers = list(servers)
        self._chance = random.Random(plan.seed)
        self._stays = AsyncExitStack()
        self._disrupted = asyncio.Condition()
        self._awaiting_disruptions = 0

    async def __aenter__(self) -> "Marathon":
        for server in self._servers:
            await server.ready()
        for number in range(self.plan.users):
            user = await register(self._http, self._servers[number % 2].url, f"Runner {number}")
            self.talkers.append(Talker(user, await self._devices(user)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stays.aclose()

    async def _devices(self, user: ChatUser) -> tuple[Device, ...]:
        urls = [server.url for server in self._servers]
        return tuple(
            [
                await self._stays.enter_async_context(Device(user, order, heartbeat=HEARTBEAT, chance=self._chance))
                for order in (urls, urls[::-1])
            ]
        )

    async def run(self) -> None:
        """Send all messages and do all disruptions; then wait until all devices have received everything."""
        lines = enumerate(script(self.plan, self._chance))
        async with asyncio.TaskGroup() as group:
            talks = [group.create_task(self._talk(talker, lines)) for talker in self.talkers]
            group.create_task(self._disrupt(talks))
        await all_quiet([device for talker in self.talkers for device in talker.devices], TURN_TIMEOUT)

    def _note(self, what: str) -> None:
        self.record.append(what)
        if self._report is not None:
            self._report(what)

    # -- messages ------------------------------------------------------------------------------------------------

    async def _talk(self, talker: Talker, lines: Iterator[tuple[int, Line]]) -> None:
        """Send lines until there are none, now and then a second one before the first is answered."""
        for number, line in lines:
            await self._until_disruptions(number * self.plan.disruptions // self.plan.turns)
            burst = [line]
            if self._chance.random() < 0.3 and (another := next(lines, None)) is not None:
                await self._until_disruptions(another[0] * self.plan.disruptions // self.plan.turns)
                burst.append(another[1])
            await asyncio.gather(*(self._turn(talker, one) for one in burst))

    async def _turn(self, talker: Talker, line: Line) -> None:
        """Send it from one device, and wait for its end; retry it if it fails."""
        device, other = self._chance.sample(talker.devices, 2)
        message = await device.say(line.content)
        talker.sent[message] = line
        if line.cancelled:
            await other.until(lambda: message in other.transcript.turn_of, TURN_TIMEOUT)
            with suppress(AssertionError):  # a reply that is taken over may have no text for long
                await other.until(lambda: other.text(message) or self._has_ended(other, message), FIRST_TEXT_TIMEOUT)
            await other.cancel(other.transcript.turn_of[message])
        turn = await device.end_of(message, timeout=TURN_TIMEOUT)
        while turn["status"] == "failed":
            assert turn["error"]["retryable"], turn
            self._note(f"turn {turn['id']} is retried after {turn['error']['code']}")
            await device.retry(turn["id"])
            turn = await device.end_of(message, turn["attempt"] + 1, TURN_TIMEOUT)
        assert turn["status"] == "completed" or line.cancelled, turn

    def _has_ended(self, device: Device, message: str) -> bool:
        reply = device.transcript.replies.get(device.transcript.turn_of.get(message, ""))
        return reply is not None and reply.turn is not None

    async def _until_disruptions(self, number: int) -> None:
        """Pace the messages, so that turns are open at every disruption."""
        async with self._disrupted:
            self._awaiting_disruptions += 1
            await self._disrupted.wait_for(lambda: self.disruptions.total() >= number)
            self._awaiting_disruptions -= 1

    # -- disruptions ---------------------------------------------------------------------------------------------

    async def _disrupt(self, talks: "Sequence[asyncio.Task[None]]") -> None:
        for _ in range(self.plan.disruptions):
            await asyncio.sleep(self._chance.uniform(0.5, 4.0))
            await self._until_turns_are_open(talks)
            disruption = self._chance.choice(self.plan.kinds)
            victim = self._chance.choice(self._servers)
            self._note(f"{disruption} {'both' if disruption == 'blackout' else victim.log.stem}")
            async with self._disrupted:
                self.disruptions[disruption] += 1
                self._disrupted.notify_all()
            await self._apply(disruption, victim)

    async def _until_turns_are_open(self, talks: "Sequence[asyncio.Task[None]]") -> None:
        """Or until a user waits for a disruption before the next message, or all messages are sent."""
        devices = [talker.devices[0] for talker in self.talkers]
        while (
            all(device.is_quiet for device in devices)
            and not self._awaiting_disruptions
            and not all(talk.done() for talk in talks)
        ):
            await asyncio.sleep(0.1)

    async def _apply(self, disruption: Disruption, victim: ServerProcess) -> None:
        """Returns when both servers are ready again."""
        match disruption:
            case "kill":
                victim.kill()
            case "deploy":
                victim.terminate()
                assert await victim.stopped() == 0
            case "freeze":
                victim.freeze()
                await asyncio.sleep(self._chance.uniform(*FROZEN_SECONDS))
                victim.thaw()
            case "blackout":
                for server in self._servers:
                    server.kill()
        await asyncio.sleep(self._chance.uniform(0.0, 3.0))
        for server in self._servers:
            if not server.alive:
                server.start()
        for server in self._servers:
            await server.ready()
