"""Connection tickets: redeemable once."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

from tests.contract.stores.worlds import World


async def test_a_ticket_can_be_redeemed_once(world: World) -> None:
    ticket, soon = uuid.uuid4().hex, datetime.now(UTC) + timedelta(seconds=30)

    shown = await asyncio.gather(*(world.sessions.redeem_ticket(ticket, soon) for _ in range(5)))

    assert sorted(shown) == [False] * 4 + [True]


async def test_expired_tickets_are_deleted_and_stay_refused(world: World) -> None:
    now = datetime.now(UTC)
    stale, old = uuid.uuid4().hex, now - timedelta(minutes=6)

    assert not await world.sessions.redeem_ticket(stale, old)
    assert await world.sessions.redeem_ticket(uuid.uuid4().hex, now)
    assert stale not in await world.tickets()
