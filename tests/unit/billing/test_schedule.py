"""The table of billing's periods: SQL has the same ones, and each is longer than the periods it must exceed."""

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
    "private.look_soon": (s.FIRST_SEARCH,),
    "private.is_awaited": (s.AWAITED,),
    "private.next_look": (
        s.SHORTEST_PAUSE,
        s.LONGEST_PAUSE,
        s.HOUSEKEEPING_SEARCH,
        s.HOUSEKEEPING_SEARCH,
        s.LATE_SEARCH_UNTIL,
        s.LATE_SEARCH_EVERY,
        s.SEARCHED_FOR,
    ),
    "private.search_json": (s.KEYS_SINCE, s.KNOWN_SINCE),
    "public.claim_settlements": (
        s.REREAD_EVERY,
        s.HOUSEKEEPING_FROM,
        s.HOUSEKEEPING_FROM,
        s.SEARCHED_FOR,
        s.HOUSEKEEPING_SEARCH,
        s.REREAD,
    ),
}
"""The periods of each SQL function, in their order in its body."""


def functions() -> dict[str, str]:
    """Name → body of the SQL functions, each by its last definition."""
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
"""The assumed error of a clock that has not been measured yet."""
TURN = timedelta(seconds=Limits().turn_seconds)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        # If a turn were settled before its call is logged, it would be charged as housekeeping or to another turn.
        pytest.param(s.LITELLM_TIMEOUT + s.LITELLM_WRITES_WITHIN, s.LONGEST_CALL, id="a stopped turn waits"),
        pytest.param(s.LITELLM_WRITES_WITHIN + s.LAST_CALL_BEFORE_FAILURE, s.ALL_LOGGED, id="a failed turn waits"),
        # Searches continue for as long as calls may be logged.
        pytest.param(s.LONGEST_CALL, s.AWAITED, id="an interrupted attempt is searched for until its calls are logged"),
        pytest.param(s.REREAD, s.LATE_SEARCH_UNTIL, id="the last day is read again to its end"),
        pytest.param(s.REREAD_EVERY + s.LATE_SEARCH_EVERY, s.REREAD, id="no call is missed between two readings"),
        pytest.param(s.LATE_SEARCH_UNTIL + TURN, s.SEARCHED_FOR, id="an attempt is known while it is searched for"),
        pytest.param(s.REREAD + TURN, s.SEARCHED_FOR, id="an attempt is known while its log is read"),
        # A summary that the agent made at its end is logged, searched for and read.
        pytest.param(
            s.LITELLM_WRITES_WITHIN, s.HOUSEKEEPING_SEARCH, id="housekeeping is logged when it is searched for"
        ),
        pytest.param(s.HOUSEKEEPING_FROM, s.HOUSEKEEPING_SEARCH, id="housekeeping is read when it is searched for"),
        # Two clocks: a call is read, and a row that was entered before is known.
        pytest.param(CLOCKS, s.READ_MARGIN, id="the read period begins before the searched one, by any clock"),
        pytest.param(s.READ_MARGIN + CLOCKS, s.KNOWN_SINCE, id="a call that is read and was entered is known"),
        pytest.param(
            timedelta(seconds=clock.OLDEST_SECONDS),
            CLOCKS,
            id="an unmeasured clock has a larger error than a late date",
        ),
        pytest.param(s.CLOCK_TOLERANCE, s.CLOCK_DOUBT, id="the tolerance is below the doubt"),
        pytest.param(s.CLOCK_DOUBT, timedelta(seconds=clock.OLDEST_SECONDS), id="a late date explains the doubt"),
        # Keys: a call with a replaced key works, and is read.
        pytest.param(TURN, s.KEY_OVERLAP, id="a replaced key outlives every turn that uses it"),
        pytest.param(s.KEY_OVERLAP + s.READ_MARGIN + CLOCKS, s.KEYS_SINCE, id="its calls are read while it is valid"),
        pytest.param(s.KEY_OVERLAP + CLOCKS, s.KEY_REPLACED, id="a replaced key is recognized"),
        # An estimate stays as long as a call may confirm it, and longer than a search takes.
        pytest.param(s.ALL_LOGGED + s.LONGEST_PAUSE, s.UNMATCHED_AFTER, id="unmatched calls were searched for again"),
        pytest.param(s.UNMATCHED_AFTER, s.CONFIRMED_WITHIN, id="an estimate is flagged before it is written off"),
        pytest.param(
            s.LONGEST_CALL, s.CONFIRMED_WITHIN, id="no estimate is written off whose call may still be logged"
        ),
        pytest.param(
            s.CONFIRMED_WITHIN + s.LONGEST_PAUSE + s.REREAD_EVERY + TURN,
            s.REREAD,
            id="a call in doubt is read again after the estimate that it might have confirmed is written off",
        ),
        pytest.param(s.SHORTEST_PAUSE, s.LONGEST_PAUSE, id="pauses grow"),
        pytest.param(s.POLL, s.LONGEST_POLL, id="polling intervals grow"),
        pytest.param(s.BUDGET_REFUSED, s.BUDGET_FRESH, id="a refusal is refreshed sooner than a budget"),
        pytest.param(s.PRICE_RETRY, s.PRICE_FRESH, id="an expired price is refreshed sooner than a current one"),
    ],
)
def test_a_period_is_longer_than_the_one_it_must_exceed(less: timedelta, more: timedelta) -> None:
    assert less < more


def test_polls_are_at_least_as_frequent_as_first_searches() -> None:
    assert s.POLL <= s.FIRST_SEARCH
