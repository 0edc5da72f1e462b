"""Users who send random messages: every kind of reply, failure and interruption, from two devices each.

Independent of pytest: the short run is a test, the long one a command.
"""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.stack.charges import REMEMBER
from tests.stack.chat_client import TERMINAL, ChatUser, Device

Json = dict[str, Any]
LONG: Final = "7 " * 12_000
"""After a few such messages the agent summarises the conversation."""
ANSWERED: Final = ("ECHO yes", "ECHO and this is a longer answer", "REASON", REMEMBER, "SLOW 12 0.03", "ERR 500 1")
FAILING: Final = ("ERR 400", "ERR 429", "ERR 500", "DROP")
RETRIED: Final = ("ERR 400 1", "DROP")


@dataclass(slots=True)
class Talker:
    """One user with two devices. `said`: the content of each turn, by its id."""

    user: ChatUser
    devices: tuple[Device, Device]
    chance: random.Random
    said: dict[str, str] = field(default_factory=dict)

    async def talk(self, turns: int) -> None:
        """At least this many turns, one act after another; an act ends with its turns."""
        acts: dict[Callable[[], Awaitable[None]], int] = {
            self._ask: 10,
            self._ask_at_length: 1,
            self._fail: 3,
            self._try_again: 2,
            self._stop: 4,
            self._interrupt: 2,
            self._say_three_at_once: 2,
            self._send_twice: 2,
        }
        while len(self.said) < turns:
            [act] = self.chance.choices([*acts], [*acts.values()])
            await act()

    # -- acts ------------------------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        await self._ended(await self._send(self.chance.choice(ANSWERED)))

    async def _ask_at_length(self) -> None:
        await self._ended(await self._send(f"{LONG}\nECHO I see"))

    async def _fail(self) -> None:
        await self._ended(await self._send(self.chance.choice(FAILING)))

    async def _try_again(self) -> None:
        turn_id = await self._send(self.chance.choice(RETRIED))
        if (await self._ended(turn_id))["status"] == "failed":
            await self._command("retry", turn_id)
            await self._ended(turn_id, attempt=2)

    async def _stop(self) -> None:
        """At once, before the model answers, or after some words."""
        turn_id = await self._send(f"SLOW {self.chance.randrange(10, 30)} 0.1")
        watching = self.chance.choice(self.devices)
        match self.chance.randrange(3):
            case 0:
                await asyncio.sleep(self.chance.uniform(0, 1))
            case 1:
                words = self.chance.randrange(1, 6)
                await watching.wait_for(
                    lambda frame: len(watching.text_of(turn_id).split()) >= words or _ends(frame, turn_id)
                )
        await self._command("cancel", turn_id)
        await self._ended(turn_id)

    async def _interrupt(self) -> None:
        turn_id = await self._send(f"SLOW {self.chance.randrange(10, 30)} 0.1")
        await asyncio.sleep(self.chance.uniform(0, 2))
        urgent = await self._send("ECHO at once", on_busy="interrupt")
        await self._ended(turn_id)
        await self._ended(urgent)

    async def _say_three_at_once(self) -> None:
        turn_ids = [await self._send(self.chance.choice(ANSWERED)) for _ in range(3)]
        if self.chance.random() < 0.5:
            await self._command("cancel", turn_ids[2])
        for turn_id in turn_ids:
            await self._ended(turn_id)

    async def _send_twice(self) -> None:
        """The same message from both devices at the same time."""
        content, message_id = self._wording(self.chance.choice(ANSWERED)), uuid.uuid4().hex
        acks = await asyncio.gather(*(d.say(content, client_message_id=message_id) for d in self.devices))
        [turn_id] = {ack["turn_id"] for ack in acks}
        self.said[turn_id] = content
        await self._ended(turn_id)

    # -- steps -----------------------------------------------------------------------------------------------------

    def _wording(self, directive: str) -> str:
        return f"{uuid.uuid4().hex} {directive}"

    async def _send(self, directive: str, **fields: Any) -> str:
        content = self._wording(directive)
        ack = await self.chance.choice(self.devices).say(content, **fields)
        assert ack["type"] == "ack", ack
        self.said[ack["turn_id"]] = content
        return str(ack["turn_id"])

    async def _command(self, kind: str, turn_id: str) -> None:
        """It may come after the end of the turn."""
        device, frame_id = self.chance.choice(self.devices), uuid.uuid4().hex
        await device.send(type=kind, id=frame_id, turn_id=turn_id)
        await device.answer_to(frame_id)

    async def _ended(self, turn_id: str, attempt: int = 1) -> Json:
        """The ended turn, once both devices have received its terminal event."""
        ends = [
            await device.wait_for(lambda f: _ends(f, turn_id) and f["attempt"] == attempt) for device in self.devices
        ]
        turn: Json = ends[0]["turn"]
        return turn


def _ends(frame: Json, turn_id: str) -> bool:
    """Whether a frame is the terminal event of an attempt at this turn."""
    return frame["type"] in TERMINAL and frame["turn_id"] == turn_id
