"""A device as its owner uses it: it shows what is open, reconnects as the protocol says, and trusts nobody."""

import asyncio
import copy
from dataclasses import dataclass
from typing import Literal, Protocol

import orjson

from server.protocol.codes import SLOW_CONSUMER, CloseCode
from server.protocol.cursors import EventCursor
from server.protocol.errors import PlatformError
from server.sessions.events.codec import TERMINAL
from server.sessions.events.log import LogTrimmedError
from server.sessions.events.snapshot import Snapshot
from server.sessions.hub import RefusedConnectionError
from tests.unit.sessions.device import Device, Json
from tests.unit.sessions.world import Process, World

Key = tuple[str, int]
Manner = Literal["cursor", "none", "old"]
_RETRY_SECONDS = 1.0
_CONNECT_SECONDS = 10.0
_KEPT = 12


@dataclass(frozen=True, slots=True)
class Memory:
    """What a device had been told when it held this cursor."""

    cursor: EventCursor
    running: Key | None
    waiting: frozenset[str]
    texts: dict[Key, str]
    ends: dict[Key, Json]
    greeted_at: float


class Surroundings(Protocol):
    """What a device lives in. `deaf_until`: processes could not always hear each other; `cut_until`: nor to the last
    word, where one of them died. `numbered`: every event that any device has received, by its epoch and number."""

    world: World
    failures: list[str]
    deaf_until: float
    cut_until: float
    numbered: dict[tuple[str, int], Json]

    def choose(self) -> Process | None:
        """The process that a connection reaches now."""
        ...


class ClientModel(Device):
    """Online until it is told to go.

    What it finds wrong goes to the failures of its surroundings: the server that calls it survives what a client does.
    """

    def __init__(self, around: Surroundings, user_id: str, name: str) -> None:
        super().__init__()
        self.name = name
        self.user_id = user_id
        self.running: Key | None = None
        self.waiting: set[str] = set()
        self.greeted_at = self._running_since = 0.0
        self.process: Process | None = None
        self.online = True
        self._around = around
        self._memories: list[Memory] = []
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._life = asyncio.create_task(self._live(), name=f"device-{name}")

    async def aclose(self) -> None:
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)
        self.leave()

    # -- its connection ------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        while True:
            await self._wanted.wait()
            process = self._around.choose()
            if process is None or not await self._connects(process):
                await asyncio.sleep(_RETRY_SECONDS)

    async def _connects(self, process: Process) -> bool:
        cursor = self._memories[-1].cursor if self._memories else None
        self.process = process
        self._wanted.clear()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self.join(process.hub, self.user_id, cursor)
        except (RefusedConnectionError, PlatformError, TimeoutError) as refusal:
            if isinstance(refusal, RefusedConnectionError) and not refusal.code.reconnect:
                self._fail(f"was refused with {refusal.code.reason}")
            self._wanted.set()
            return False
        except Exception as error:
            self._fail(f"could not join: {error!r}")
        if process.boundary.frozen.is_set():  # it was stopped before it could say so
            self.drop("cursor")
            return False
        return True

    def drop(self, manner: Manner, place: int = 0) -> None:
        """Lose the connection; what was kept of its state decides where the next one reads on."""
        self.leave()
        if manner == "none":
            self._memories = []
        elif manner == "old" and self._memories:
            del self._memories[1 + place % len(self._memories) :]
            self._restore(self._memories[-1])
        if self.online:
            self._wanted.set()

    def go_offline(self) -> None:
        self.online = False
        self.leave()
        self._wanted.clear()

    def come_online(self) -> None:
        self.online = True
        if self.attachment is None:
            self._wanted.set()

    def doze(self) -> None:
        self.dozing = True

    def awake(self) -> None:
        self.dozing = False
        if self.attachment is not None:
            self.read()

    def close(self, code: CloseCode) -> None:
        super().close(code)
        if not code.reconnect:
            self._fail(f"was closed with {code.reason}")
        if self.online:
            self._wanted.set()

    @property
    def is_blank(self) -> bool:
        """Whether the screen shows nothing as open."""
        return self.running is None and not self.waiting

    # -- what it is told -----------------------------------------------------------------------------------------

    def read(self) -> None:
        try:
            super().read()
            self._remember()
        except LogTrimmedError:
            self.close(SLOW_CONSUMER)
        except AssertionError as broken:
            self._fail(str(broken))

    def _take(self, snapshot: Snapshot) -> None:
        super()._take(snapshot)
        self.greeted_at = asyncio.get_running_loop().time()
        self.running = None if snapshot.running is None else (snapshot.running.turn_id, snapshot.running.attempt)
        self._running_since = self.greeted_at
        self.waiting = {turn["id"] for turn in snapshot.queued}
        if self.greeted_at < self._around.deaf_until:
            # What one process told to its own devices alone, another may tell once more.
            shown = self.waiting if self.running is None else self.waiting | {self.running[0]}
            self.ends = {key: end for key, end in self.ends.items() if key[0] not in shown}
        self._remember()

    def _see(self, event: Json) -> None:
        super()._see(event)
        if "first_seq" not in event:
            known = self._around.numbered.setdefault((event["epoch"], event["seq"]), event)
            assert known == event, f"one number means {known} and {event}"
        key = str(event.get("turn_id")), int(event.get("attempt", 0))
        match event["type"]:
            case "turn.queued":
                assert self.running != key, f"{key} waits though it runs"
                self._supersede(key)
                self.waiting.add(key[0])
            case "turn.started":
                self._supersede(key)
                assert self.running in (None, key), f"{key} starts though {self.running} runs"
                self.running, self._running_since = key, asyncio.get_running_loop().time()
                self.waiting.discard(key[0])
            case "agent.status":
                pass
            case kind if kind in TERMINAL:
                self._see_end(key, event["turn"])
            case kind:
                assert self.running == key, f"{kind} of {key} though {self.running} runs"

    def _supersede(self, key: Key) -> None:
        """A newer attempt at the turn says that the one before is over: the rows do not know its end any more."""
        if self.running is not None and self.running[0] == key[0] and self.running[1] < key[1]:
            self.running = None

    def _see_end(self, key: Key, turn: Json) -> None:
        row = self._around.world.turn(key[0])
        if row.attempt == key[1]:
            assert row.status.ended, f"an end of {key} that the rows do not know"
            assert turn == orjson.loads(orjson.dumps(row.wire())), f"an end of {key} that is not the stored one"
        streamed, message = self.streamed(*key), turn["message"]
        if self.running == key and (streamed or turn["status"] == "completed"):
            stored = message["content"] if message else ""
            # Where the last words of a process were lost on their way to the others, the stored ones end the reply.
            is_cut = self._running_since < max(self._around.deaf_until, self._around.cut_until)
            is_right = stored.startswith(streamed) if is_cut else streamed == stored
            assert is_right, f"{key} {turn['status']} showed {streamed!r} and stored {stored!r}"
        self.waiting.discard(key[0])
        if self.running is not None and self.running[0] == key[0]:
            self.running = None

    def _remember(self) -> None:
        texts, ends = copy.copy(self._texts), copy.copy(self.ends)
        memory = Memory(self.cursor, self.running, frozenset(self.waiting), texts, ends, self.greeted_at)
        self._memories = [*self._memories[-_KEPT:], memory]

    def _restore(self, memory: Memory) -> None:
        self.running, self.waiting, self.greeted_at = memory.running, set(memory.waiting), memory.greeted_at
        self._texts, self.ends = copy.copy(memory.texts), copy.copy(memory.ends)

    def _fail(self, what: str) -> None:
        self._around.failures.append(f"device {self.name}: {what}")
