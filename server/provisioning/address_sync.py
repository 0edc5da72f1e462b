"""Gives a user's billing customer the e-mail address of the profile after it has changed. Touches the account store and
the model gateway."""

import asyncio
from typing import Final

import structlog

from server.ports import AccountChange, AccountStore, BillingGateway, FencedError, ProvisioningClaim
from server.protocol.errors import PlatformError
from server.provisioning.claims import CLAIM_SECONDS
from server.provisioning.steps import has_current_address

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS: Final = 10.0


class AddressSync:
    """`owner` names this instance in claims; it differs from the owner of its provisioning."""

    def __init__(self, store: AccountStore, billing: BillingGateway, owner: str) -> None:
        self._store = store
        self._billing = billing
        self._owner = owner

    async def run(self, user_id: str) -> None:
        """Change the customer's address, unless it is the profile's. If that is not possible now, a later call or the
        repair does it. Raises nothing."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                claim = await self._store.claim(user_id, self._owner, CLAIM_SECONDS)
                if claim is None:
                    return
                try:
                    await self._write(claim)
                finally:
                    await self._store.release(claim)
        except (PlatformError, FencedError, TimeoutError) as error:
            log.warning("address.not_written", user_id=user_id, error=str(error) or type(error).__name__)

    async def _write(self, claim: ProvisioningClaim) -> None:
        account = claim.account
        if account.agent_status.closed or has_current_address(account):
            return
        await self._billing.set_address(account.user_id, account.email)
        await self._store.record(claim, AccountChange(customer_email=account.email))
        log.info("address.written", user_id=account.user_id)
