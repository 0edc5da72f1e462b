"""An independent bookkeeper: compares LiteLLM's log of a user with every copy of its figures in the platform.

Reads LiteLLM's log, our tables and the API, and does not use the server's code. Money is compared to the last digit,
in responses to twelve decimals, to which exact sums are rounded once.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from typing import Any, Final

import aiohttp
import psycopg
from psycopg.rows import dict_row

from tests.stack.chat_client import TIMEOUT, ChatUser

Json = dict[str, Any]
MICRODOLLAR: Final = Decimal("0.000001")
PLAIN: Final = re.compile(r"0|(?:0|[1-9]\d*)\.\d{0,11}[1-9]|[1-9]\d*")
"""The form of an amount in responses: at most twelve decimals, without trailing zeros."""
TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
_QUERIES: Final = {
    "entries": "select * from public.ledger where user_id = %s order by started_at, request_id",
    "attempts": "select * from public.attempts where user_id = %s order by started_at",
    "turns": "select * from public.turns where user_id = %s order by number",
    "messages": "select * from public.messages where user_id = %s order by position",
    "keys": "select key_hash from public.model_keys where user_id = %s",
    "days": "select * from public.usage_metrics where user_id = %s order by date",
}


def shown(amount: Decimal) -> Decimal:
    """The amount as in responses."""
    return amount.quantize(Decimal("1e-12"), ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class Call:
    """A row of LiteLLM's log. `cost` in US dollars, unrounded."""

    request_id: str
    key_hash: str
    status: str
    model: str
    cost: Decimal
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    started_at: datetime

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def counts(self) -> bool:
        """Whether its tokens were used: LiteLLM logs a refused call with the tokens of its prompt."""
        return self.status == "success" or self.cost > 0

    @classmethod
    def of(cls, row: Json) -> "Call":
        usage = row["metadata"].get("usage_object") or {}
        return cls(
            request_id=row["request_id"],
            key_hash=row["api_key"],
            status=row["status"],
            model=row["model_group"] or row["model"],
            cost=Decimal(row["spend"]),
            prompt_tokens=row["prompt_tokens"],
            completion_tokens=row["completion_tokens"],
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            reasoning_tokens=(usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0,
            started_at=datetime.fromisoformat(row["startTime"]).astimezone(UTC),
        )


@dataclass(slots=True)
class Book:
    """All copies of one user's figures at one time; `wrong` lists their differences."""

    calls: dict[str, Call] = field(default_factory=dict)
    entries: list[Json] = field(default_factory=list)
    attempts: list[Json] = field(default_factory=list)
    turns: list[Json] = field(default_factory=list)
    messages: list[Json] = field(default_factory=list)
    days: list[Json] = field(default_factory=list)
    keys: list[Json] = field(default_factory=list)
    usage: Json = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def waiting(self) -> list[tuple[str, int]]:
        """Attempts that are not settled yet, by turn and number."""
        return [(str(one["turn_id"]), one["attempt"]) for one in self.attempts if one["settled_at"] is None]

    def is_estimated(self, turn_id: object = None) -> bool:
        """Whether this turn, or any turn, has an estimate in place of its calls."""
        return any(
            entry["status"] == "estimated" and (turn_id is None or entry["turn_id"] == turn_id)
            for entry in self.entries
        )

    def of_turn(self, turn_id: str | None) -> list[Call]:
        """The logged calls that the ledger attributes to this turn, oldest first; None: to no turn."""
        own = [entry["request_id"] for entry in self.entries if _id(entry["turn_id"]) == turn_id]
        return [self.calls[request_id] for request_id in own if request_id in self.calls]

    def turn(self, turn_id: str) -> Json:
        return next(turn for turn in self.turns if str(turn["id"]) == turn_id)

    @property
    def flagged(self) -> list[str]:
        return [f"{one['request_id']}: {one['flag']}" for one in self.entries if one["flag"]] + [
            f"attempt {one['attempt']} at {one['turn_id']}: {one['flag']}" for one in self.attempts if one["flag"]
        ]


class Bookkeeper:
    """Reads with the services' own keys. `env` names them as `stack.env` does."""

    def __init__(self, env: Mapping[str, str], http: aiohttp.ClientSession) -> None:
        self._env = env
        self._http = http

    async def settled(self, user: ChatUser, unsettled: Iterable[str] = (), timeout: float = TIMEOUT) -> Book:
        """The user's book once every ended attempt is settled and all copies agree, or as it is after `timeout`
        seconds: then `wrong` lists the differences. `unsettled`: turns that cannot be settled for some minutes."""
        allowed = frozenset(unsettled)
        until = asyncio.get_running_loop().time() + timeout
        while True:
            book = await self.read(user)
            late = [key for key in book.waiting if key[0] not in allowed]
            if not (late or book.wrong):
                return book
            if asyncio.get_running_loop().time() > until:
                book.wrong += [f"attempt {number} at turn {turn_id} is not settled" for turn_id, number in late]
                return book
            await asyncio.sleep(0.3)

    async def read(self, user: ChatUser) -> Book:
        """The user's book as it is now."""
        calls = await self.logged(user.id)
        book = Book(calls={call.request_id: call for call in calls})
        tables = await asyncio.to_thread(partial(self._tables, user.id))
        for name, rows in tables.items():
            setattr(book, name, rows)
        book.usage = await user.get("/user/usage")
        book.wrong += [
            *_compare_entries(book),
            *_compare_turns(book),
            *_compare_days(book),
            *_compare_usage(book),
            *_compare_form(book.usage),
            *_compare_totals(book),
        ]
        return book

    async def logged(self, user_id: str) -> list[Call]:
        """All calls of a user that LiteLLM has logged since yesterday."""
        today = datetime.now(UTC).date()
        query = {
            "user_id": user_id,
            "start_date": str(today - timedelta(days=1)),
            "end_date": str(today + timedelta(days=1)),
            "summarize": "false",
        }
        headers = {"Authorization": f"Bearer {self._env['LITELLM_MASTER_KEY']}"}
        url = f"{self._env['LITELLM_BASE_URL'].rstrip('/')}/spend/logs"
        async with self._http.get(url, params=query, headers=headers) as response:
            rows = json.loads(await response.text(), parse_float=Decimal)
        assert response.status == 200, rows
        return [Call.of(row) for row in rows]

    def _tables(self, user_id: str) -> dict[str, list[Json]]:
        with psycopg.connect(self._env["SUPABASE_DB_URL"], row_factory=dict_row) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            return {name: connection.execute(query.encode(), [user_id]).fetchall() for name, query in _QUERIES.items()}


def _compare_entries(book: Book) -> list[str]:
    """Call by call: the ledger equals LiteLLM's log, and all calls were made with the user's own keys."""
    entered = {entry["request_id"]: entry for entry in book.entries if entry["source"] == "litellm"}
    wrong = [f"call {lost} is not in the ledger" for lost in book.calls.keys() - entered.keys()]
    wrong += [f"ledger row {extra} is of no logged call" for extra in entered.keys() - book.calls.keys()]
    keys = {key["key_hash"] for key in book.keys}
    wrong += [
        f"call {call.request_id} was made with another key" for call in book.calls.values() if call.key_hash not in keys
    ]
    for request_id in book.calls.keys() & entered.keys():
        call, entry = book.calls[request_id], entered[request_id]
        names = ("model", "cost", *TOKENS)
        logged = (call.status, *(getattr(call, name) for name in names))
        if (stored := (entry["outcome"], *(entry[name] for name in names))) != logged:
            wrong.append(f"call {request_id} is {logged} in the log and {stored} in the ledger")
    return wrong


def _compare_turns(book: Book) -> list[str]:
    """Turn by turn: usage and cost are the sums of its calls, and the reply has the same figures."""
    wrong = []
    replies = {message["turn_id"]: message for message in book.messages if message["role"] == "assistant"}
    for turn in book.turns:
        if book.is_estimated(turn["id"]):
            continue
        calls = book.of_turn(str(turn["id"]))
        cost, usage = _cost(calls), _usage(calls)
        if (turn["usage"], turn["cost"] or 0) != (usage, cost):
            wrong.append(f"turn {turn['id']} is {turn['usage']} ${turn['cost']} and should be {usage} ${cost}")
        reply = replies.get(turn["id"])
        tokens = usage["total_tokens"] if usage else None
        if reply and (reply["tokens_used"], reply["cost"] or 0) != (tokens, round(cost, 6)):
            wrong.append(f"the reply of {turn['id']} is {reply['tokens_used']} tokens ${reply['cost']}, of {usage}")
    return wrong


def _compare_days(book: Book) -> list[str]:
    """UTC day by UTC day."""
    if book.is_estimated():
        return []
    wrong, stored = [], {row["date"]: row for row in book.days}
    for day in stored.keys() | _days(book):
        calls = [call for call in book.calls.values() if call.started_at.date() == day and call.counts]
        cost, row = _cost(calls), stored.get(day) or {"exact_cost": 0, "total_cost": 0, "total_tokens": 0}
        figures = row["exact_cost"], row["total_cost"], row["total_tokens"]
        if figures != (true := (cost, round(cost, 6), _sum(calls, "total_tokens"))):
            wrong.append(f"{day} is {figures} and should be {true}")
    return wrong


def _compare_usage(book: Book) -> list[str]:
    """The usage endpoint: in total, in this range, by day and by model, and the part that belongs to no turn."""
    if book.is_estimated():
        return []
    usage, wrong = book.usage, []
    calls = [call for call in book.calls.values() if call.counts]
    true = len(book.messages), *_figures(calls)
    wrong += [
        f"{n} is shown as {_totals(usage[n])} and should be {true}"
        for n in ("total", "range")
        if _totals(usage[n]) != true
    ]
    days = {day["date"]: _totals(day)[1:] for day in usage["days"] if day["tokens"] or Decimal(day["cost"])}
    used = {day.isoformat(): _figures([c for c in calls if c.started_at.date() == day]) for day in _days(book)}
    if days != {day: figures for day, figures in used.items() if any(figures)}:
        wrong.append(f"days are shown as {days} and should be {used}")
    models = {
        one["model"]: [*(one[name] for name in TOKENS[:2] + TOKENS[3:]), Decimal(one["cost"])]
        for one in usage["models"]
    }
    true_models = {}
    for model in {call.model for call in calls}:
        own = [call for call in calls if call.model == model]
        true_models[model] = [*(_sum(own, name) for name in TOKENS[:2] + TOKENS[3:]), shown(_cost(own))]
    if models != true_models:
        wrong.append(f"models are shown as {models} and should be {true_models}")
    background = Decimal(usage["range"]["background"]["cost"])
    if background != shown(_cost(book.of_turn(None))):
        wrong.append(f"the background is shown as ${background} and should be ${_cost(book.of_turn(None))}")
    return wrong


def _compare_form(value: object, name: str = "") -> list[str]:
    """The form of the amounts in a response; an amount that was charged is never shown as 0."""
    if isinstance(value, dict):
        return [wrong for key, part in value.items() for wrong in _compare_form(part, key)]
    if isinstance(value, list):
        return [wrong for part in value for wrong in _compare_form(part, name)]
    if name in ("cost", "spent", "limit", "remaining") and value is not None and not PLAIN.fullmatch(str(value)):
        return [f"{name} is shown as {value!r}"]
    return []


def _compare_totals(book: Book) -> list[str]:
    """The sum of all turns and the background equals what LiteLLM charged."""
    if book.is_estimated():
        return []
    charged = sum((turn["cost"] or Decimal(0) for turn in book.turns), _cost(book.of_turn(None)))
    if charged != (logged := _cost(book.calls.values())):
        return [f"turns and background are ${charged} where LiteLLM charged ${logged}"]
    return []


def _days(book: Book) -> set[date]:
    return {call.started_at.date() for call in book.calls.values() if call.counts}


def _totals(figures: Json) -> tuple[int, int, Decimal]:
    return figures["messages"], figures["tokens"], Decimal(figures["cost"])


def _figures(calls: Sequence[Call]) -> tuple[int, Decimal]:
    return _sum(calls, "total_tokens"), shown(_cost(calls))


def _usage(calls: Sequence[Call]) -> Json | None:
    """In the form that turns have."""
    counted = [call for call in calls if call.counts]
    if not counted:
        return None
    return {**{name: _sum(counted, name) for name in TOKENS}, "model_calls": len(counted)}


def _sum(calls: Iterable[Call], name: str) -> int:
    return sum(getattr(call, name) for call in calls)


def _cost(calls: Iterable[Call]) -> Decimal:
    return sum((call.cost for call in calls), Decimal(0))


def _id(value: object) -> str | None:
    return None if value is None else str(value)
