"""The table of billing's periods: SQL has the same ones, and they stand to each other as they must."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from server.adapters.litellm import clock
from server.ports import schedule as s
from server.protocol.limits import Limits

ROOT = Path(__file__).parents[3]
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
INTERVAL = re.compile(r"interval '(\d+) (second|minute|hour|day)s?'")
FUNCTION = re.compile(r"create (?:or replace )?function (\w+\.\w+)\(.*?\$\$(.*?)\$\$", re.DOTALL)
OF_BILLING = re.compile(r"\b(?:attempts|ledger|model_keys|billing_accounts)\b")

IN_SQL = {
    "private.look_soon": (s.FIRST_LOOK,),
    "private.is_awaited": (s.AWAITED,),
    "private.next_look": (
        s.SOONEST_LOOK,
        s.LATEST_LOOK,
        s.HOUSEKEEPING_LOOK,
        s.HOUSEKEEPING_LOOK,
        s.LATE_LOOKS_UNTIL,
        s.LATE_LOOKS_EVERY,
        s.FORGOTTEN_AFTER,
    ),
    "private.search_json": (s.KEYS_SINCE, s.KNOWN_SINCE),
    "public.claim_settlements": (
        s.REREAD_EVERY,
        s.FORGOTTEN_AFTER,
        s.HOUSEKEEPING_UNTIL,
        s.HOUSEKEEPING_FROM,
        s.REREAD,
    ),
}
"""The periods of each function, in the order in which they stand there."""


def functions() -> dict[str, str]:
    """Name → body of the SQL functions, each as it is defined last."""
    files = sorted((ROOT / "supabase" / "migrations").glob("*.sql"))
    return {name: body for file in files for name, body in FUNCTION.findall(file.read_text("utf-8"))}


def periods(body: str) -> tuple[timedelta, ...]:
    return tuple(timedelta(seconds=int(number) * UNITS[unit]) for number, unit in INTERVAL.findall(body))


@pytest.mark.parametrize("name", IN_SQL)
def test_sql_has_the_periods_of_the_table(name: str) -> None:
    assert periods(functions()[name]) == IN_SQL[name]


def test_no_other_function_of_billing_has_a_period() -> None:
    of_billing = {name for name, body in functions().items() if OF_BILLING.search(body)}
    assert {name for name in of_billing if "interval '" in functions()[name]} <= set(IN_SQL)


CLOCKS = timedelta(seconds=clock.UNKNOWN_SECONDS)
"""How far off clocks may be before anything is known of them."""
TURN = timedelta(seconds=Limits().turn_seconds)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        # If a turn were settled before its call is logged, that would be charged as housekeeping, or to another turn.
        pytest.param(s.LITELLM_GIVES_UP + s.LITELLM_WRITES_WITHIN, s.LONGEST_CALL, id="a stopped turn waits"),
        pytest.param(s.LITELLM_WRITES_WITHIN + s.SOON_AFTER, s.ALL_LOGGED, id="a failed turn waits"),
        # Somebody looks as long as calls may come.
        pytest.param(s.LONGEST_CALL, s.AWAITED, id="a broken-off attempt is looked for until its calls have come"),
        pytest.param(s.REREAD, s.LATE_LOOKS_UNTIL, id="the last day is read again to its end"),
        pytest.param(s.REREAD_EVERY + s.LATE_LOOKS_EVERY, s.REREAD, id="nothing falls between two readings"),
        pytest.param(s.LATE_LOOKS_UNTIL + TURN, s.FORGOTTEN_AFTER, id="an attempt is known while it is looked for"),
        pytest.param(s.REREAD + TURN, s.FORGOTTEN_AFTER, id="an attempt is known while its log is read"),
        # A summary that the agent made at its end is logged, looked for and read.
        pytest.param(s.LITELLM_WRITES_WITHIN, s.HOUSEKEEPING_LOOK, id="housekeeping is logged when it is looked for"),
        pytest.param(s.HOUSEKEEPING_FROM, s.HOUSEKEEPING_LOOK, id="housekeeping is read when it is looked for"),
        pytest.param(s.HOUSEKEEPING_LOOK + s.LONGEST_POLL, s.HOUSEKEEPING_UNTIL, id="and also by a late look"),
        # Two clocks: a call is read, and what was entered before is known to be.
        pytest.param(CLOCKS, s.READ_MARGIN, id="what is read begins before what is looked for, by any clock"),
        pytest.param(s.READ_MARGIN + CLOCKS, s.KNOWN_SINCE, id="what is read and entered is known"),
        pytest.param(timedelta(seconds=clock.OLDEST_SECONDS), CLOCKS, id="an unknown clock is worse than a late date"),
        pytest.param(s.CLOCKS_AGREE, s.DOUBTED, id="less than the doubted is agreement"),
        pytest.param(s.DOUBTED, timedelta(seconds=clock.OLDEST_SECONDS), id="a late date explains what is doubted"),
        # Keys: a call with a replaced key works, and is read.
        pytest.param(TURN, s.KEY_OVERLAP, id="a replaced key outlives every turn that carries it"),
        pytest.param(s.KEY_OVERLAP + s.READ_MARGIN + CLOCKS, s.KEYS_SINCE, id="its calls are read while it goes on"),
        pytest.param(s.KEY_OVERLAP + CLOCKS, s.KEY_REPLACED, id="a key that was replaced is known as such"),
        # An estimate stands as long as a call may confirm it, and longer than it takes to look.
        pytest.param(s.ALL_LOGGED + s.LATEST_LOOK, s.QUIET, id="calls that do not add up were looked for again"),
        pytest.param(s.QUIET, s.CONFIRMED_WITHIN, id="what does not add up is flagged before it is written off"),
        pytest.param(s.LONGEST_CALL, s.CONFIRMED_WITHIN, id="nothing is written off that may still be logged"),
        pytest.param(s.SOONEST_LOOK, s.LATEST_LOOK, id="looks become more seldom"),
        pytest.param(s.POLL, s.LONGEST_POLL, id="polls become more seldom"),
        pytest.param(s.BUDGET_REFUSED, s.BUDGET_FRESH, id="a refusal is doubted sooner than a budget"),
        pytest.param(s.PRICE_RETRY, s.PRICE_FRESH, id="an outdated price is asked for sooner than a known one"),
    ],
)
def test_a_period_is_longer_than_what_it_must_outlast(less: timedelta, more: timedelta) -> None:
    assert less < more


def test_an_attempt_that_has_just_ended_is_looked_for_at_the_first_poll() -> None:
    assert s.POLL <= s.FIRST_LOOK
