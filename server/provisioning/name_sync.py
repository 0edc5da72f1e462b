"""Writes the user's name to the agent after it has changed. Touches the account store and the agent.

Call it only from the owner of the user's session and while no run is active: the agent writes to the same text."""

import asyncio
from typing import Final

import structlog

from server.ports import AccountChange, AccountStore, AgentDirectory, FencedError, ProvisioningClaim
from server.protocol.errors import PlatformError
from server.provisioning.claims import CLAIM_SECONDS
from server.provisioning.steps import has_current_name

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS: Final = 5.0
"""How long a turn waits at most for the name to be written. A later turn retries."""


class NameSync:
    """`owner` names this instance in claims; it differs from the owner of its provisioning."""

    def __init__(self, store: AccountStore, directory: AgentDirectory, owner: str) -> None:
        self._store = store
        self._directory = directory
        self._owner = owner

    async def run(self, user_id: str) -> bool:
        """Write the user's name to the agent, unless it has it. Returns False if that was not possible now."""
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                claim = await self._store.claim(user_id, self._owner, CLAIM_SECONDS)
                if claim is None:
                    return False
                try:
                    await self._write(claim)
                finally:
                    await self._store.release(claim)
        except (PlatformError, FencedError, TimeoutError) as error:
            log.warning("name.not_written", user_id=user_id, error=str(error) or type(error).__name__)
            return False
        return True

    async def _write(self, claim: ProvisioningClaim) -> None:
        account = claim.account
        if account.handle is None or account.name is None or has_current_name(account):
            return
        await self._directory.write_name(account.handle, account.told_name, account.name)
        await self._store.record(claim, AccountChange(told_name=account.name))
        log.info("name.written", user_id=account.user_id)
