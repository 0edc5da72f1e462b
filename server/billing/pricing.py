"""Estimates what a turn costs, from its tokens and the listed price. US dollars, unrounded."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

import structlog

from server.ports import BillingGateway, Estimate, ModelPrice
from server.ports.schedule import PRICE_FRESH, PRICE_RETRY, PRICE_TIMEOUT
from server.protocol.errors import PlatformError
from server.protocol.shapes import Usage

log = structlog.get_logger(__name__)


def charge(usage: Usage, price: ModelPrice) -> Decimal:
    """What LiteLLM charges for these tokens: cached prompt tokens at their own price, reasoning ones as completion."""
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    return (
        (usage.prompt_tokens - cached) * price.prompt
        + cached * price.cached
        + usage.completion_tokens * price.completion
    )


@dataclass(slots=True)
class _Quote:
    """A cached price; it expires at `until`, on the monotonic clock."""

    price: ModelPrice | None
    until: float


class Pricing:
    """Caches the price of the agents' model for five minutes. An expired price is used during an outage, and no turn
    fails for lack of a price.

    `clock` in seconds, monotonic."""

    def __init__(self, billing: BillingGateway, model: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._billing = billing
        self._model = model
        self._clock = clock
        self._quote: _Quote | None = None
        self._lock = asyncio.Lock()

    async def price(self) -> ModelPrice | None:
        """The price as last listed. None: none is listed, or LiteLLM has been unavailable so far. Raises nothing."""
        async with self._lock:
            if self._quote is None or self._quote.until <= self._clock():
                self._quote = await self._refresh(self._quote)
            return self._quote.price

    async def estimate(self, usage: Usage) -> Estimate:
        """The estimated cost of a turn. Raises nothing."""
        price = await self.price()
        return Estimate(self._model, None if price is None else charge(usage, price), price)

    async def _refresh(self, known: _Quote | None) -> _Quote:
        try:
            async with asyncio.timeout(PRICE_TIMEOUT.total_seconds()):
                price = await self._billing.price(self._model)
        except (PlatformError, TimeoutError) as error:
            reason = error.code if isinstance(error, PlatformError) else "timeout"
            log.warning("price.not_refreshed", model=self._model, reason=reason, outdated=known is not None)
            return _Quote(known.price if known else None, self._clock() + PRICE_RETRY.total_seconds())
        if price is None:
            log.warning("price.not_listed", model=self._model)
        return _Quote(price, self._clock() + PRICE_FRESH.total_seconds())
