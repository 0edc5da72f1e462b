"""What a turn costs: at once from its tokens and the listed price, as an estimate.

Core: knows the billing port only. All money is in US dollars, unrounded."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import structlog

from server.ports import BillingGateway, ModelPrice
from server.protocol.errors import PlatformError
from server.protocol.shapes import Usage

log = structlog.get_logger(__name__)

FRESH_SECONDS: Final = 300.0
RETRY_SECONDS: Final = 15.0
"""How long an outdated price, or none, stands after LiteLLM could not be asked."""


def estimate(usage: Usage, price: ModelPrice) -> Decimal:
    """What LiteLLM charges for these tokens: cached prompt tokens at their own price, reasoning as completion."""
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    return (
        (usage.prompt_tokens - cached) * price.prompt
        + cached * price.cached
        + usage.completion_tokens * price.completion
    )


@dataclass(slots=True)
class _Quote:
    """What is known of a model's price; `until` is when to ask again, on the monotonic clock."""

    price: ModelPrice | None
    until: float


class Pricing:
    """Prices, asked for at most once in five minutes per model. A price outlives an outage; a turn never fails for one.

    `clock` in seconds, monotonic."""

    def __init__(self, billing: BillingGateway, clock: Callable[[], float] = time.monotonic) -> None:
        self._billing = billing
        self._clock = clock
        self._quotes: dict[str, _Quote] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def price(self, model: str) -> ModelPrice | None:
        """The price as last listed. None: none is listed, or LiteLLM could never be asked. Raises nothing."""
        async with self._asking.setdefault(model, asyncio.Lock()):
            quote = self._quotes.get(model)
            if quote is None or quote.until <= self._clock():
                quote = self._quotes[model] = await self._ask(model, quote)
            return quote.price

    async def cost(self, model: str, usage: Usage) -> Decimal | None:
        """The estimated cost of a turn. None where no price is known. Raises nothing."""
        price = await self.price(model)
        return None if price is None else estimate(usage, price)

    async def _ask(self, model: str, known: _Quote | None) -> _Quote:
        try:
            price = await self._billing.price(model)
        except PlatformError as error:
            log.warning("price.unknown", model=model, code=error.code, outdated=known is not None)
            return _Quote(known.price if known else None, self._clock() + RETRY_SECONDS)
        if price is None:
            log.warning("price.not_listed", model=model)
        return _Quote(price, self._clock() + FRESH_SECONDS)
