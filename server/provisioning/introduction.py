"""Tells an agent its user's name after the name has changed. Touches the account store and the agent.

Only whoever runs the user's session may have it done, while nothing runs: the agent writes in the same text."""

import asyncio
from typing import Final

import structlog

from server.ports import AccountChange, AccountStore, AgentDirectory, FencedError, ProvisioningClaim
from server.protocol.errors import PlatformError
from server.provisioning.saga import CLAIM_SECONDS
from server.provisioning.steps import is_introduced

log = structlog.get_logger(__name__)

SECONDS: Final = 5.0
"""How long a turn waits at most for the name to be written. A later turn tries again."""


class Introduction:
    """`owner` names this instance in claims, apart from its provisioning."""

    def __init__(self, store: AccountStore, directory: AgentDirectory, owner: str) -> None:
        self._store = store
        self._directory = directory
        self._owner = owner

    async def make(self, user_id: str) -> bool:
        """Tell the agent its user's name, unless it knows it. Returns False if it could not be told now."""
        try:
            async with asyncio.timeout(SECONDS):
                claim = await self._store.claim(user_id, self._owner, CLAIM_SECONDS)
                if claim is None:
                    return False
                try:
                    await self._tell(claim)
                finally:
                    await self._store.release(claim)
        except (PlatformError, FencedError, TimeoutError) as error:
            log.warning("name.not_told", user_id=user_id, error=str(error) or type(error).__name__)
            return False
        return True

    async def _tell(self, claim: ProvisioningClaim) -> None:
        account = claim.account
        if account.handle is None or account.name is None or is_introduced(account):
            return
        await self._directory.tell_name(account.handle, account.told_name, account.name)
        await self._store.record(claim, AccountChange(told_name=account.name))
        log.info("name.told", user_id=account.user_id)
