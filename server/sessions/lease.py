"""The lease of a session: claiming it, going on with the log where the last owner left it, and releasing it.

What the last owner stored and did not publish is published by whoever owns the session next.
"""

import structlog

from server.ports import Claim, FencedError, Lease, LogMark
from server.sessions.context import SessionContext
from server.sessions.events.replication import Replication
from server.sessions.open_turns import OpenTurns

log = structlog.get_logger(__name__)


class LeaseHolder:
    """Its methods that wait are parts of commands of the session's mailbox: one at a time."""

    __slots__ = ("_context", "_is_dropped", "_is_releasing", "_open", "_replication", "_store", "_user_id", "lease")

    def __init__(self, user_id: str, context: SessionContext, replication: Replication, open_turns: OpenTurns) -> None:
        self.lease: Lease | None = None
        self._user_id = user_id
        self._context = context
        self._store = context.attempts.store
        self._replication = replication
        self._open = open_turns
        self._is_releasing = False  # asked for, and not answered: until then nothing is appended
        self._is_dropped = False

    @property
    def publishes(self) -> bool:
        """Whether this instance appends to the log. Of a shared log only the owner does."""
        return not self._replication.is_shared or (self.lease is not None and not self._is_releasing)

    async def claim(self) -> Claim | None:
        """Claim or renew the lease. None: another owner's is valid. Raises FencedError if ours was replaced by it."""
        claim = await self._store.claim(self._user_id, self._context.owner)
        if claim is None:
            self.check(None)
            return None
        log.info("session.claimed", user_id=self._user_id, fence=claim.lease.fence, waiting=len(claim.queued))
        await self.hold(claim.lease, claim.mark)
        return claim

    def check(self, lease: Lease | None) -> None:
        """Raise FencedError if an answer says that another owner holds the lease that was ours."""
        if self.lease is not None and (lease is None or lease.fence > self.lease.fence + 1):
            raise FencedError(f"another owner has the session of {self._user_id}")

    async def hold(self, lease: Lease, mark: LogMark | None) -> bool:
        """The lease was granted: append to the log from where its last owner left it. Raises FencedError.

        Returns True if another instance may have been the owner before.
        """
        if self._is_dropped:
            return False
        if lease == self.lease:
            self.keep(in_doubt=True)
            return False
        self.check(lease)
        is_renewed = self.lease is not None and not self._is_releasing
        await self._replication.take(lease, mark)
        if self._is_dropped:
            return False
        self.lease, self._is_releasing = lease, False
        if self._replication.is_shared and not is_renewed:
            self._open.continue_from_log()
        return not is_renewed

    async def prepare_release(self) -> tuple[LogMark, bool]:
        """Append nothing from here on; where the log stops, and whether the replica has it all."""
        prepared = await self._replication.prepare_release()
        self._is_releasing = True
        return prepared

    async def release(self, *, has_connections: bool) -> bool:
        """Release the lease; while draining also if turns are open, for others to go on.

        Returns False if it is kept: turns are open, or connections here were given what the replica lacks, which the
        next owner would publish again. Raises PlatformError: it may have been released, and this is to be repeated.
        """
        lease, in_doubt, draining = self.lease, self._is_releasing, self._context.is_draining()
        assert lease is not None
        mark, is_level = await self.prepare_release()
        must_wait = has_connections and not is_level and not draining
        if not must_wait and await self._store.release(lease, mark, unless_open=not draining):
            self.lease, self._is_releasing = None, False
            return True
        self.keep(in_doubt=in_doubt)
        return False

    def keep(self, *, in_doubt: bool) -> None:
        """The lease was not released. `in_doubt`: an earlier request may be carried out later, or was, in between."""
        if self._is_releasing and self.lease is not None:
            self._is_releasing = False
            self._replication.kept(self.lease, in_doubt=in_doubt)

    def drop(self) -> None:
        """The lease is another owner's, or is left to run out: hold none any more."""
        self.lease, self._is_dropped = None, True
