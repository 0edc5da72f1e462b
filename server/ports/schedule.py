"""Every period of billing in one table: the intervals that Python, the tests' fakes and the SQL functions use.

SQL repeats some as `interval '…'`: tests/unit/billing/test_schedule.py compares them, and checks the relations
without which a call would be lost or charged twice. What was measured of LiteLLM's clock is in its adapter.
"""

from datetime import timedelta
from typing import Final

# LiteLLM's defaults

LITELLM_TIMEOUT: Final = timedelta(seconds=600)
"""LiteLLM ends a call of a model that does not answer after this time (`request_timeout`)."""
LITELLM_WRITES_WITHIN: Final = timedelta(seconds=15)
"""LiteLLM writes its log every 10 to 15 s (`proxy_batch_write_at` and a random part)."""

# When a user's calls are searched for: private.look_soon, private.is_awaited, private.next_look

FIRST_SEARCH: Final = timedelta(seconds=2)
"""After the end of an attempt. LiteLLM seldom logs sooner, and each search costs it more than it costs us."""
SHORTEST_PAUSE: Final = timedelta(seconds=2)
LONGEST_PAUSE: Final = timedelta(minutes=5)
"""While calls are awaited, the pause before the next search is a third of the time since the attempt's end, within
these bounds."""
AWAITED: Final = timedelta(minutes=12)
"""After the end of an attempt that did not complete: a call that continued may still be logged for this long."""
HOUSEKEEPING_SEARCH: Final = timedelta(seconds=20)
"""After the end of a settled attempt: one more search, for a summary that the agent may have made at its end. While
other calls are awaited, a search for them reads this as well, at most once in this time."""
LATE_SEARCH_EVERY: Final = timedelta(hours=1)
LATE_SEARCH_UNTIL: Final = timedelta(hours=25)
"""After the end of a user's last attempt. Then searches stop until the next turn."""
SEARCHED_FOR: Final = timedelta(days=2)
"""Attempts that began earlier than this are not searched for, unless they are unsettled."""

# What a search reads: public.claim_settlements, private.search_json, billing/reconciler.py

HOUSEKEEPING_FROM: Final = timedelta(seconds=15)
"""The log of an attempt that ended longer ago than this is read once more, settled or not."""
REREAD_EVERY: Final = timedelta(hours=1)
REREAD: Final = timedelta(hours=24)
"""Every `REREAD_EVERY`, the last `REREAD` of a user's log is read again, for calls that were logged late."""
READ_MARGIN: Final = timedelta(minutes=2)
"""The log is read this much beyond the searched period at both ends, since the clocks' offset may not be known yet.
Once it is known, the margin before the period is only its error, since each row that is read is 7 to 10 KB."""
KEYS_SINCE: Final = timedelta(hours=1)
"""The calls of a key are read if it was replaced no longer than this before the searched period."""
KNOWN_SINCE: Final = timedelta(hours=1)
"""A search gets the ledger's rows from this long before the searched period."""
POLL: Final = timedelta(seconds=1)
LONGEST_POLL: Final = timedelta(seconds=30)
"""How often an instance polls for due searches; the interval grows to `LONGEST_POLL` while a service is unavailable."""

# How calls are attributed: billing/attribution.py

ALL_LOGGED: Final = timedelta(seconds=30)
"""After this time, all calls of a run that ended by itself are logged."""
LONGEST_CALL: Final = timedelta(seconds=660)
"""After this time, a call that continued when its turn was cancelled has ended and is logged."""
UNMATCHED_AFTER: Final = timedelta(minutes=10)
"""After this time, calls that do not add up to the reported usage are flagged. Logs are seconds or minutes late."""
CONFIRMED_WITHIN: Final = timedelta(hours=22)
"""An estimate that the log has not confirmed after this time is written off. Calls that might have confirmed it, though
they seem to belong to a neighbour, are left alone until then, and entered when the log is read again."""
CLOCK_TOLERANCE: Final = timedelta(seconds=0.25)
"""The assumed error of two clocks whose measured difference is within the error of the measurement."""
CLOCK_DOUBT: Final = timedelta(seconds=1.5)
"""Measured differences up to this may be wrong: a busy gateway sends a `Date` header that is up to this old."""
LAST_CALL_BEFORE_STOP: Final = timedelta(seconds=0.5)
"""A charged call that ended at most this long before its attempt was stopped was its last."""
LAST_CALL_BEFORE_FAILURE: Final = timedelta(seconds=5)
"""A call that ended at most this long before its attempt failed by itself was its last."""

# Keys

KEY_OVERLAP: Final = timedelta(minutes=10)
"""How long a replaced key stays valid: longer than any turn. A Letta step that has begun, or repeats its call, uses it
still; the next step reads the key again (measured)."""
KEY_REPLACED: Final = timedelta(minutes=30)
"""A key of ours that expires later than this from now was not replaced: LiteLLM's configuration made it expire."""

# Budgets and prices

BUDGET_FRESH: Final = timedelta(seconds=60)
BUDGET_REFUSED: Final = timedelta(seconds=5)
"""Age of a budget at which it is refreshed before a message is refused: an operator may have raised it at LiteLLM."""
BUDGET_TIMEOUT: Final = timedelta(seconds=3)
PRICE_FRESH: Final = timedelta(seconds=300)
PRICE_RETRY: Final = timedelta(seconds=15)
"""How long an expired price, or none, is used before LiteLLM is asked again after a failure."""
PRICE_TIMEOUT: Final = timedelta(seconds=2)
"""How long the end of a turn waits at most for a price, which only its estimate needs."""
