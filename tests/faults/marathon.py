"""Conversations over two servers that are killed, deployed and frozen at random moments, and whom that may not hurt.

Knows nothing of pytest: the short run is a test, the long one a command.
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

Blow = Literal["kill", "deploy", "freeze", "blackout"]
PATIENCE: Final = 240.0
"""Seconds within which a turn ends, whatever happens to the servers meanwhile."""
IMPATIENCE: Final = 5.0
"""Seconds after which a reply is cancelled though it has said nothing yet."""
FROZEN_SECONDS: Final = (13.0, 16.0)
"""Longer than a lease lasts: somebody else goes on, and the frozen one must notice when it thaws."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a marathon does. The same seed gives the same messages, blows and pauses."""

    users: int
    turns: int
    blows: int
    seed: int
    kinds: tuple[Blow, ...] = ("kill",)


@dataclass(frozen=True, slots=True)
class Line:
    """One message of the script. `cancelled`: its author stops it from another device once it has begun to speak."""

    content: str
    cancelled: bool = False


@dataclass(slots=True)
class Talker:
    """A user with a device that prefers each server, and what it has sent: the message's id and its line."""

    user: ChatUser
    devices: tuple[Device, ...]
    sent: dict[str, Line] = field(default_factory=dict)


def script(plan: Plan, chance: random.Random) -> list[Line]:
    """Messages of mixed length, each of its own wording."""
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
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.plan = plan
        self.talkers: list[Talker] = []
        self.blows: Counter[Blow] = Counter()
        self.diary: list[str] = []
        """What happened, in order. `tell` hears it as well."""
        self._tell = tell
        self._http = http
        self._servers = list(servers)
        self._chance = random.Random(plan.seed)
        self._stays = AsyncExitStack()
        self._struck = asyncio.Condition()
        self._awaiting_blows = 0

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
                await self._stays.enter_async_context(
                    Device(user, [preferred, *(url for url in urls if url != preferred)], chance=self._chance)
                )
                for preferred in urls
            ]
        )

    async def run(self) -> None:
        """Talk and strike to the end; then let everybody see everything."""
        lines = enumerate(script(self.plan, self._chance))
        async with asyncio.TaskGroup() as group:
            talks = [group.create_task(self._talk(talker, lines)) for talker in self.talkers]
            group.create_task(self._strike(talks))
        await all_quiet([device for talker in self.talkers for device in talker.devices], PATIENCE)

    def _note(self, what: str) -> None:
        self.diary.append(what)
        if self._tell is not None:
            self._tell(what)

    # -- talking -------------------------------------------------------------------------------------------------

    async def _talk(self, talker: Talker, lines: Iterator[tuple[int, Line]]) -> None:
        """Take lines until there are none, now and then a second one before the first is answered."""
        for number, line in lines:
            await self._until_blows(number * self.plan.blows // self.plan.turns)
            burst = [line]
            if self._chance.random() < 0.3 and (another := next(lines, None)) is not None:
                await self._until_blows(another[0] * self.plan.blows // self.plan.turns)
                burst.append(another[1])
            await asyncio.gather(*(self._turn(talker, one) for one in burst))

    async def _turn(self, talker: Talker, line: Line) -> None:
        """Send it from one device, and see it through."""
        device, other = self._chance.sample(talker.devices, 2)
        message = await device.say(line.content)
        talker.sent[message] = line
        if line.cancelled:
            await other.until(lambda: message in other.transcript.turn_of, PATIENCE)
            with suppress(AssertionError):  # a reply that is taken over may have nothing to show for long
                await other.until(lambda: other.text(message) or self._has_ended(other, message), IMPATIENCE)
            await other.cancel(other.transcript.turn_of[message])
        turn = await device.end_of(message, patience=PATIENCE)
        while turn["status"] == "failed":
            assert turn["error"]["retryable"], turn
            self._note(f"turn {turn['id']} is tried again after {turn['error']['code']}")
            await device.retry(turn["id"])
            turn = await device.end_of(message, turn["attempt"] + 1, PATIENCE)
        assert turn["status"] == "completed" or line.cancelled, turn

    def _has_ended(self, device: Device, message: str) -> bool:
        reply = device.transcript.replies.get(device.transcript.turn_of.get(message, ""))
        return reply is not None and reply.turn is not None

    async def _until_blows(self, number: int) -> None:
        """Pace the talk: all blows fall while somebody talks."""
        async with self._struck:
            self._awaiting_blows += 1
            await self._struck.wait_for(lambda: self.blows.total() >= number)
            self._awaiting_blows -= 1

    # -- striking ------------------------------------------------------------------------------------------------

    async def _strike(self, talks: "Sequence[asyncio.Task[None]]") -> None:
        for _ in range(self.plan.blows):
            await asyncio.sleep(self._chance.uniform(0.5, 4.0))
            await self._until_somebody_talks(talks)
            blow = self._chance.choice(self.plan.kinds)
            victim = self._chance.choice(self._servers)
            self._note(f"{blow} {'both' if blow == 'blackout' else victim.log.stem}")
            async with self._struck:
                self.blows[blow] += 1
                self._struck.notify_all()
            await self._deal(blow, victim)

    async def _until_somebody_talks(self, talks: "Sequence[asyncio.Task[None]]") -> None:
        """Or waits for a blow before he does, or all have said everything."""
        devices = [talker.devices[0] for talker in self.talkers]
        while (
            all(device.is_quiet for device in devices)
            and not self._awaiting_blows
            and not all(talk.done() for talk in talks)
        ):
            await asyncio.sleep(0.1)

    async def _deal(self, blow: Blow, victim: ServerProcess) -> None:
        """Returns when both servers are ready again."""
        match blow:
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
