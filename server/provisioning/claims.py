"""Keeps a claim on an account valid while its holder works. Touches the account store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from server.aio import TaskSet
from server.ports import AccountChange, AccountStore, FencedError, ProvisioningClaim
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)

CLAIM_SECONDS: Final = 15.0
"""TTL of a claim. Short, since a new user's first message waits for its end after a crash."""
RENEW_SECONDS: Final = 4.0
"""Interval between renewals of the claim during a step."""
UNRENEWED_SECONDS: Final = 10.0
"""A step is stopped when its claim could not be renewed for this long, so that no two runs work on one user."""


@asynccontextmanager
async def renewing(store: AccountStore, claim: ProvisioningClaim) -> AsyncIterator[None]:
    """Renew the claim during a step. Raises TimeoutError inside the block when that was not possible in time."""
    async with asyncio.timeout(UNRENEWED_SECONDS) as deadline, TaskSet("provisioning claim") as tasks:
        tasks.create(_renew(store, claim, deadline), name=claim.user_id)
        yield


async def _renew(store: AccountStore, claim: ProvisioningClaim, deadline: asyncio.Timeout) -> None:
    now = asyncio.get_running_loop().time
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        began = now()
        try:
            await store.record(claim, AccountChange())
        except FencedError:
            deadline.reschedule(now())
            return
        except PlatformError as error:
            log.warning("saga.claim_not_renewed", user_id=claim.user_id, code=error.code)
        else:
            deadline.reschedule(began + UNRENEWED_SECONDS)
