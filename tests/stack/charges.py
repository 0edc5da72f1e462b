"""Short scenes on the real platform, one for each way of charging: messages are sent from a user's device, and their
turns end and are settled."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Final

import aiohttp

from server.adapters.supabase.accounts import SupabaseAccountStore
from tests.stack.bookkeeper import Book, Bookkeeper, Call, shown
from tests.stack.chat_client import TERMINAL, TIMEOUT, ChatUser, Device
from tests.stack.running_stack import RunningStack
from tests.stack.supabase_users import PASSWORD, client_of, sign_up, token_of

Json = dict[str, Any]
REMEMBER: Final = 'CALL memory_insert {"label": "human", "new_string": "Sails", "insert_line": -1}'
LONG: Final = "7 " * 14_000
"""14,000 tokens: after a few such messages the agent summarises the conversation."""
LONG_MESSAGES: Final = 3


@dataclass(frozen=True, slots=True)
class Charged:
    """A turn as in the database, with its rows in LiteLLM's log and the number of requests that the model got for
    it."""

    turn: Json
    calls: list[Call]
    asked: int
    published: list[Json]
    """The turn's `usage.settled` events."""
    written: int
    """Words that the model wrote for it."""

    @property
    def cost(self) -> Decimal | None:
        return None if self.turn["cost"] is None else Decimal(self.turn["cost"])

    @property
    def statuses(self) -> list[str]:
        return [call.status for call in self.calls]


@dataclass(slots=True)
class Scene:
    """One user with one device. `turns` by name; `unsettled` are those that cannot be settled for minutes."""

    stack: RunningStack
    http: aiohttp.ClientSession
    user: ChatUser
    device: Device
    turns: dict[str, str] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)

    @property
    def keeper(self) -> Bookkeeper:
        return Bookkeeper(self.stack.env, self.http)

    async def send(self, name: str, directive: str, **fields: Any) -> str:
        """Send a message and store its turn under this name."""
        self.contents[name] = f"{uuid.uuid4().hex} {directive}"
        ack = await self.device.say(self.contents[name], **fields)
        assert ack["type"] == "ack", ack
        self.turns[name] = ack["turn_id"]
        return self.turns[name]

    async def say(self, name: str, directive: str, **fields: Any) -> Json:
        """Send a message and return its turn when it has ended."""
        turn: Json = (await self.device.end_of(await self.send(name, directive, **fields)))["turn"]
        return turn

    async def cancel(self, turn_id: str) -> None:
        """Cancel a turn and wait for its end."""
        frame_id = uuid.uuid4().hex
        await self.device.send(type="cancel", id=frame_id, turn_id=turn_id)
        assert (answer := await self.device.answer_to(frame_id))["type"] == "ack", answer
        await self.device.end_of(turn_id)

    async def retry(self, turn_id: str, attempt: int) -> Json:
        """Retry a turn, which must complete; returns it."""
        frame_id = uuid.uuid4().hex
        await self.device.send(type="retry", id=frame_id, turn_id=turn_id)
        assert (answer := await self.device.answer_to(frame_id))["type"] == "ack", answer
        end = await self.device.wait_for(
            lambda f: f["type"] in TERMINAL and (f["turn_id"], f["attempt"]) == (turn_id, attempt)
        )
        assert end["type"] == "turn.completed", end
        turn: Json = end["turn"]
        return turn

    async def limit(self, **limits: float | None) -> None:
        """Change the user's limits at LiteLLM, from the next call on."""
        await self._at_litellm("POST", "user/update", json={"user_id": self.user.id, **limits})

    async def has_spent(self) -> None:
        """Return when LiteLLM counts something against the user's budget."""
        async with asyncio.timeout(TIMEOUT):
            while not (await self._at_litellm("GET", f"user/info?user_id={self.user.id}"))["user_info"]["spend"]:
                await asyncio.sleep(0.1)

    async def is_in_budget(self) -> None:
        """Return when the server does not count the budget as used up: of a user whose limit was raised it asks LiteLLM
        only every few seconds, and then refuses a retry."""
        async with asyncio.timeout(TIMEOUT):
            while budget := (await self.user.get("/user/usage"))["budget"]:
                if budget["limit"] is None or Decimal(budget["spent"]) < Decimal(budget["limit"]):
                    return
                await asyncio.sleep(0.5)

    async def _at_litellm(self, method: str, path: str, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.stack.env['LITELLM_MASTER_KEY']}"}
        url = f"{self.stack.env['LITELLM_BASE_URL'].rstrip('/')}/{path}"
        async with self.http.request(method, url, headers=headers, **options) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def is_told(self, book: Book) -> None:
        """Return when the device has the settlement of every turn with calls: it is published once it is stored."""
        for turn_id in self.turns.values():
            turn = book.turn(turn_id)
            if turn["cost_status"] == "settled" and book.of_turn(turn_id):
                await self.device.wait_for(partial(_tells, turn_id, shown(turn["cost"])))

    async def until(self, name: str, state: str) -> None:
        """Return when the model's last request for the turn of this name is in this state."""
        async with asyncio.timeout(TIMEOUT):
            while [one["state"] for one in await self._requests(name)][-1:] != [state]:
                await asyncio.sleep(0.1)

    async def _requests(self, name: str) -> list[Json]:
        """The model's requests for the turn of this name, without those that only contain a reminder of it."""
        seen = await self.stack.model_log(self.http, self.contents[name].split()[0])
        return [request for request in seen if request["text"].endswith(self.contents[name])]

    async def charged(self, name: str, book: Book) -> Charged:
        """The charge of the turn of this name."""
        turn_id = self.turns[name]
        published = [event for event in self.device.events_of(turn_id) if event["type"] == "usage.settled"]
        asked = await self._requests(name)
        written = sum(request["words"] for request in asked)
        return Charged(book.turn(turn_id), book.of_turn(turn_id), len(asked), published, written)


def _tells(turn_id: str, cost: Decimal, frame: Json) -> bool:
    """Whether a frame has the settlement of this turn."""
    return frame["type"] == "usage.settled" and (frame["turn_id"], Decimal(frame["cost"])) == (turn_id, cost)


@asynccontextmanager
async def user_without_agent(stack: RunningStack, http: aiohttp.ClientSession) -> AsyncIterator[ChatUser]:
    """A new user, whose agent is not made before the end of the block: another instance seems to be making it."""
    async with aclosing(client_of(stack.env)) as client:
        somebody, accounts = await sign_up(client), SupabaseAccountStore(client)
        await accounts.ensure(somebody.user_id, somebody.email, None)
        claim = await accounts.claim(somebody.user_id, "tests", 2 * TIMEOUT)
        assert claim is not None
        password = PASSWORD.get_secret_value()
        yield ChatUser(http, stack.url, somebody.user_id, somebody.email, password, token_of(somebody), "")
        await accounts.release(claim)


async def unasked(scene: Scene) -> None:
    """A message that is cancelled while its agent is being made."""
    await scene.cancel(await scene.send("before the model", "ECHO never asked"))


async def answers(scene: Scene) -> None:
    """Plain replies, tools, reasoning, and an error of the model after which Letta's retry succeeds."""
    await scene.say("done", "ECHO one")
    await scene.say("done again", "ECHO two")
    await scene.say("tools", REMEMBER)
    await scene.say("thinking", "REASON")
    await scene.say("thinking alone", "MUSE")
    await scene.say("remembering", 'CALL QUIETLY memory_insert {"label": "human", "new_string": "Rows"}')
    await scene.say("recovered", "ERR 500 1")
    client_message_id = str(uuid.uuid4())
    await scene.say("sent twice", "ECHO once", client_message_id=client_message_id)
    again = await scene.device.say(scene.contents["sent twice"], client_message_id=client_message_id)
    assert again["turn_id"] == scene.turns["sent twice"]


async def cancellations(scene: Scene) -> None:
    """Replies that are stopped before their first word, in the middle and while queued."""
    gate = uuid.uuid4().hex
    early = await scene.send("early", f"GATE {gate} 0 9")
    await scene.stack.at_gate(scene.http, gate)
    await scene.cancel(early)
    await scene.stack.open_gate(scene.http, gate)
    middle = await scene.send("in mid-reply", f"GATE {gate}-2 3 6")
    await scene.device.wait_for(lambda _: scene.device.text_of(middle).split() == ["w0", "w1", "w2"])
    waiting = await scene.send("waiting", "ECHO never said")
    await scene.cancel(waiting)
    await scene.cancel(middle)
    await scene.until("in mid-reply", "gone")
    running = await scene.send("interrupted", f"GATE {gate}-3 1 7")
    await scene.device.wait_for(lambda _: scene.device.text_of(running).split() == ["w0"])
    await scene.say("interrupting", "ECHO now", on_busy="interrupt")
    await scene.device.end_of(running)
    await scene.until("interrupted", "gone")
    for name in (f"{gate}-2", f"{gate}-3"):
        await scene.stack.open_gate(scene.http, name)


async def failures(scene: Scene) -> None:
    """Errors of the model that end a turn, and a reply that is broken off."""
    await scene.say("server error", "ERR 500")
    await scene.say("bad request", "ERR 400")
    await scene.say("model too busy", "ERR 429")
    await scene.say("broken off", "DROP")
    failed = await scene.say("tried again", "ERR 400 1")
    await scene.retry(failed["id"], 2)


async def budgets(scene: Scene) -> None:
    """A budget that is used up in the middle of a turn, a second attempt with a larger one, and one of nothing."""
    await scene.say("within", "ECHO within")
    await scene.has_spent()
    gate = uuid.uuid4().hex
    broken = await scene.send("out of budget", REMEMBER.replace("CALL", f"CALL AT {gate}"))
    await scene.stack.at_gate(scene.http, gate)
    await scene.limit(max_budget=0.000001)
    await scene.stack.open_gate(scene.http, gate)
    assert (await scene.device.end_of(broken))["type"] == "turn.failed"
    await scene.limit(max_budget=1000)
    await scene.is_in_budget()
    await scene.retry(broken, 2)
    await scene.keeper.settled(scene.user)
    await scene.limit(max_budget=0.000001)
    await scene.say("no budget", "ECHO too late")


async def silences(scene: Scene) -> None:
    """A call that is not logged for minutes, because the model hangs."""
    await scene.say("before", "ECHO before")
    hanging = await scene.send("hanging", "HANG")
    await scene.until("hanging", "running")
    await scene.cancel(hanging)
    scene.unsettled.add(hanging)


async def summaries(scene: Scene) -> None:
    """Long messages, until the agent has summarised the conversation."""
    for number in range(LONG_MESSAGES):
        await scene.say(f"long {number}", f"{LONG}\nECHO {number}")
