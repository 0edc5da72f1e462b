"""The charges of users who sent random messages: each user's book, the model's requests for each turn, and the
`usage.settled` events on the devices."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import median
from typing import Any, Final

import aiohttp

from tests.billing.talker import Talker
from tests.reconcile import report
from tests.reconcile.report import Figure, Report
from tests.stack.bookkeeper import Book, Bookkeeper, shown
from tests.stack.chat_client import Device
from tests.stack.running_stack import RunningStack

Json = dict[str, Any]
TIMEOUT: Final = 120.0
EVENT_SECONDS: Final = 10.0
TOKENS_A_WORD: Final = 2
"""Of the numbered words (w0 w1 …) of the scripted model."""
LOGGED: Final = "by LiteLLM's log"
UNLIKE: Final = ("background alone", "by the usage page")
"""Sums that differ from the others: a part, and one that is rounded, which is compared user by user."""
NAMES: Final = (
    "turns",
    "completed",
    "failed",
    "cancelled",
    "attempts",
    "asked",
    "ledger",
    "LiteLLM",
    "tokens",
    "flagged",
)


@dataclass(slots=True)
class ChargesReport(Report):
    """The figures of one user. US dollars, unrounded. `unasked`: unsettled cancelled turns without a logged call;
    `open`: other unsettled turns. `stopped`: the words that the model wrote of stopped replies, and the words that it
    was asked for."""

    costs: dict[str, Decimal] = field(default_factory=dict)
    request_ids: set[str] = field(default_factory=set)
    settled_after: list[float] = field(default_factory=list)
    unasked: int = 0
    open: int = 0
    stopped: tuple[int, int] = (0, 0)


class ChargesReconciler:
    """Use after all turns have ended, while devices are connected."""

    def __init__(self, stack: RunningStack, http: aiohttp.ClientSession) -> None:
        self._stack = stack
        self._http = http
        self._keeper = Bookkeeper(stack.env, http)

    async def of(self, talker: Talker) -> ChargesReport:
        """All figures of one user, and their differences after a wait for late ones.

        A cancelled turn may stay unsettled for minutes, since a call of it might still be logged."""
        requests = {turn_id: await self._requests(content) for turn_id, content in talker.said.items()}
        until = asyncio.get_running_loop().time() + TIMEOUT
        while True:
            book = await self._keeper.settled(talker.user, await self._cancelled(talker), TIMEOUT)
            unlike = [turn_id for turn_id, made in requests.items() if not _may_have_asked(book, turn_id, len(made))]
            if not unlike or asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(0.5)
            requests |= {turn_id: await self._requests(talker.said[turn_id]) for turn_id in unlike}
        found = _report(book, requests)
        found.wrong += book.wrong
        found.wrong += [f"turn {turn_id} is lost" for turn_id in talker.said.keys() - _ids(book.turns)]
        found.wrong += [f"turn {turn_id} is of no sent message" for turn_id in _ids(book.turns) - talker.said.keys()]
        found.wrong += [
            f"turn {turn_id} asked the model {len(requests[turn_id])} times and has {_calls_of(book, turn_id)} calls"
            for turn_id in unlike
        ]
        found.wrong += [wrong for turn_id, made in requests.items() if (wrong := _overcharged(book, turn_id, made))]
        received = [self._received(device, book, turn_id) for device in talker.devices for turn_id in talker.said]
        found.wrong += [wrong for wrong in await asyncio.gather(*received) if wrong is not None]
        return found

    async def _cancelled(self, talker: Talker) -> list[str]:
        book = await self._keeper.read(talker.user)
        return [str(turn["id"]) for turn in book.turns if turn["status"] == "cancelled"]

    async def _requests(self, content: str) -> list[Json]:
        """The model's requests that end with this message; requests for a summary contain it elsewhere."""
        seen = await self._stack.model_log(self._http, content.split(maxsplit=1)[0])
        return [request for request in seen if request["text"].endswith(content)]

    async def _received(self, device: Device, book: Book, turn_id: str) -> str | None:
        """None if the device received the final figures of a turn; else an error."""
        turn = book.turn(turn_id)
        if turn["cost_status"] != "settled" or not book.of_turn(turn_id):
            return None
        with suppress(TimeoutError):
            async with asyncio.timeout(EVENT_SECONDS):
                await device.wait_for(lambda frame: _has_final_figures(frame, turn))
                return None
        return f"a device received no event that turn {turn_id} cost ${turn['cost']}"


def _calls_of(book: Book, turn_id: str) -> int:
    """The number of calls of a turn that reached the model and are logged."""
    return sum(call.total_tokens > 0 for call in book.of_turn(turn_id))


def _may_have_asked(book: Book, turn_id: str, times: int) -> bool:
    """Whether the calls of a turn may be those with its message. Refused summaries cannot be distinguished from them; a
    turn that broke off is charged its summaries, too."""
    is_done = any(str(turn["id"]) == turn_id and turn["status"] == "completed" for turn in book.turns)
    charged = sum(call.counts for call in book.of_turn(turn_id))
    return times <= _calls_of(book, turn_id) and (charged <= times or not is_done)


def _overcharged(book: Book, turn_id: str, requests: Sequence[Json]) -> str | None:
    """An error if a stopped reply is charged words that the model had not written (one may have been on its way)."""
    calls = book.of_turn(turn_id)
    if len(calls) != 1 or not _was_stopped(book, turn_id, requests):
        return None
    [request] = requests
    if calls[0].completion_tokens <= (request["words"] + 1) * TOKENS_A_WORD:
        return None
    return f"turn {turn_id} is charged {calls[0].completion_tokens} tokens for {request['words']} words"


def _was_stopped(book: Book, turn_id: str, requests: Sequence[Json]) -> bool:
    """Whether it is one cancelled call with the directive SLOW."""
    counting = [str(request["directive"]).startswith("SLOW") for request in requests]
    return counting == [True] and any(
        str(turn["id"]) == turn_id and turn["status"] == "cancelled" for turn in book.turns
    )


def _words_asked(request: Json) -> int:
    return int(request["directive"].split()[1])


def _has_final_figures(frame: Json, turn: Json) -> bool:
    return bool(
        frame["type"] == "usage.settled"
        and frame["turn_id"] == str(turn["id"])
        and frame["cost"] is not None
        and (Decimal(frame["cost"]), frame["usage"]) == (shown(turn["cost"]), turn["usage"])
    )


def _ids(rows: Sequence[Json]) -> set[str]:
    return {str(row["id"]) for row in rows}


def _report(book: Book, requests: dict[str, list[Json]]) -> ChargesReport:
    entered = [entry for entry in book.entries if entry["source"] == "litellm"]
    waiting = {turn_id for turn_id, _ in book.waiting}
    opened = {turn_id for turn_id in waiting if book.of_turn(turn_id)}
    stopped = [made[0] for turn_id, made in requests.items() if _was_stopped(book, turn_id, made)]
    background = sum((call.cost for call in book.of_turn(None)), Decimal(0))
    return ChargesReport(
        counts=Counter(
            {
                "turns": len(book.turns),
                **Counter(turn["status"] for turn in book.turns),
                "attempts": len(book.attempts),
                "asked": sum(map(len, requests.values())),
                "ledger": len(entered),
                "LiteLLM": len(book.calls),
                "tokens": sum(call.total_tokens for call in book.calls.values() if call.counts),
                "flagged": len(book.flagged),
            }
        ),
        costs={
            LOGGED: sum((call.cost for call in book.calls.values()), Decimal(0)),
            "by the ledger": sum((entry["cost"] for entry in entered), Decimal(0)),
            "by the usage page": Decimal(book.usage["total"]["cost"]),
            "turns and background": sum((turn["cost"] or Decimal(0) for turn in book.turns), background),
            "background alone": background,
        },
        request_ids=set(book.calls),
        settled_after=[
            (attempt["settled_at"] - attempt["ended_at"]).total_seconds()
            for attempt in book.attempts
            if attempt["settled_at"] is not None and attempt["sent_at"] is not None
        ],
        unasked=len(waiting) - len(opened),
        open=len(opened),
        stopped=(sum(request["words"] for request in stopped), sum(_words_asked(request) for request in stopped)),
    )


def disagreements(reports: Sequence[ChargesReport]) -> list[str]:
    """The differences of all users, and those of the sums over all users."""
    wrong = report.disagreements(reports)
    shared = [one for one, times in Counter(one for r in reports for one in r.request_ids).items() if times > 1]
    wrong += [f"call {request_id} is of several users" for request_id in shared]
    sums = _costs(reports)
    if len({cost for name, cost in sums.items() if name not in UNLIKE}) > 1:
        wrong.append(f"all together: {sums}")
    return wrong


def table(reports: Sequence[ChargesReport]) -> str:
    """The counts, a line per user and their sum; the total cost by each source; and the time until turns were
    settled."""
    figures: list[dict[str, Figure]] = [
        {**{name: one.counts[name] for name in NAMES}, "cost": one.costs[LOGGED]} for one in reports
    ]
    text = [report.table((*NAMES, "cost"), figures)]
    text += [f"{name:>22}  ${cost:f}" for name, cost in _costs(reports).items()]
    waits = [seconds for one in reports for seconds in one.settled_after]
    text.append(f"settled after {median(waits):.1f} s (median), {max(waits):.1f} s (longest)")
    written, wanted = (sum(one.stopped[part] for one in reports) for part in (0, 1))
    text.append(f"of replies that were stopped the model wrote {written} words of {wanted}")
    unasked, opened = sum(one.unasked for one in reports), sum(one.open for one in reports)
    text.append(f"{unasked + opened} cancelled turns are open still, of {unasked} of them the model was not asked")
    return "\n".join(text)


def _costs(reports: Sequence[ChargesReport]) -> dict[str, Decimal]:
    return {name: sum((one.costs[name] for one in reports), Decimal(0)) for name in reports[0].costs}
