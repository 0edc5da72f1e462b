"""Every period of billing, once: what Python, the fakes of the tests and the SQL functions wait for and look back to.

SQL repeats some as `interval '…'`: tests/unit/billing/test_schedule.py compares them, and checks the relations
without which a call would be lost or charged twice. What was measured of LiteLLM's clock is in its adapter.
"""

from datetime import timedelta
from typing import Final

# LiteLLM, as it is by default

LITELLM_GIVES_UP: Final = timedelta(seconds=600)
"""After so long LiteLLM ends a call of a model that does not answer (`request_timeout`)."""
LITELLM_WRITES_WITHIN: Final = timedelta(seconds=15)
"""LiteLLM writes its log every 10 to 15 s (`proxy_batch_write_at` and a random part)."""

# When to look for a user's calls: private.look_soon, private.is_awaited, private.next_look

FIRST_LOOK: Final = timedelta(seconds=1)
"""After the end of an attempt."""
SOONEST_LOOK: Final = timedelta(seconds=1)
LATEST_LOOK: Final = timedelta(minutes=5)
"""While calls are awaited, the next look comes after a third of the time since the attempt ended, within these two."""
AWAITED: Final = timedelta(minutes=12)
"""After the end of an attempt that was broken off: how long a call of it that went on may still be logged."""
HOUSEKEEPING_LOOK: Final = timedelta(seconds=20)
"""After the end of a settled attempt: one more look, for the summary that the agent may have made at its end."""
LATE_LOOKS_EVERY: Final = timedelta(hours=1)
LATE_LOOKS_UNTIL: Final = timedelta(hours=25)
"""After the end of a user's last attempt. Then nobody looks any more, until the next turn."""
FORGOTTEN_AFTER: Final = timedelta(days=2)
"""Attempts that began before are not looked for, unless they are unsettled."""

# What a look reads: public.claim_settlements, private.search_json, billing/reconciler.py

HOUSEKEEPING_FROM: Final = timedelta(seconds=15)
HOUSEKEEPING_UNTIL: Final = timedelta(minutes=1)
"""An attempt that ended so long ago is read again, settled or not."""
REREAD_EVERY: Final = timedelta(hours=1)
REREAD: Final = timedelta(hours=24)
"""So often, so much of a user's log is read again, for what came late."""
READ_MARGIN: Final = timedelta(minutes=2)
"""How much more is read than is looked for, at both ends: clocks differ by more than is known of them yet."""
KEYS_SINCE: Final = timedelta(hours=1)
"""A key is read if it was replaced no longer than this before what is looked for."""
KNOWN_SINCE: Final = timedelta(hours=1)
"""Rows of the ledger are known to a look from so long before what is looked for."""
POLL: Final = timedelta(seconds=1)
LONGEST_POLL: Final = timedelta(seconds=30)
"""How often an instance asks whose calls are due: at most so seldom, while a service is unavailable."""

# What a look decides: billing/attribution.py

ALL_LOGGED: Final = timedelta(seconds=30)
"""After so long, all calls of a run that ended by itself are logged."""
LONGEST_CALL: Final = timedelta(seconds=660)
"""After so long, a call that went on when its turn was cancelled has ended, and is logged."""
QUIET: Final = timedelta(minutes=10)
"""After so long, calls that do not add up to what was reported never will. Logs are some seconds late, or minutes."""
CONFIRMED_WITHIN: Final = timedelta(hours=24)
"""An estimate that the log has not confirmed by then is written off."""
CLOCKS_AGREE: Final = timedelta(seconds=0.25)
"""How well clocks agree that do so as far as can be measured."""
DOUBTED: Final = timedelta(seconds=1.5)
"""By how much less a measured difference is doubted: a busy gateway dates its answers with seconds that are over."""
AT_THE_END: Final = timedelta(seconds=0.5)
"""A charged call that ended no longer than this before its attempt was made to stop was its last."""
SOON_AFTER: Final = timedelta(seconds=5)
"""A call that ended no longer than this before its attempt failed by itself was its last."""

# Keys

KEY_OVERLAP: Final = timedelta(minutes=10)
"""How long a replaced key goes on: longer than any turn. A step that has just begun at Letta, or repeats its call, has
it still; the next step takes the key anew (measured)."""
KEY_REPLACED: Final = timedelta(minutes=30)
"""A key of ours that expires later than this from now was not replaced: LiteLLM's configuration made it expire."""

# Budgets and prices

BUDGET_FRESH: Final = timedelta(seconds=60)
BUDGET_REFUSED: Final = timedelta(seconds=5)
"""How long a refusal stands before LiteLLM is asked again: an operator may have raised the budget there."""
BUDGET_TIMEOUT: Final = timedelta(seconds=3)
PRICE_FRESH: Final = timedelta(seconds=300)
PRICE_RETRY: Final = timedelta(seconds=15)
"""How long an outdated price, or none, stands after LiteLLM could not be asked."""
PRICE_TIMEOUT: Final = timedelta(seconds=2)
"""How long the end of a turn is held up for a price, which is an estimate's."""
