"""Model calls for the gateway's log: made through a real LiteLLM, or added to the log of the fake."""

import asyncio
import itertools
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol

import aiohttp
from pydantic import SecretStr

from server.adapters.litellm.billing import LiteLLMBilling
from server.keyring import fingerprint
from server.ports import BillingGateway, ModelCall, ModelPrice, Plan
from tests.fakes.billing import FakeBilling

MODEL = "gpt-4"
GPT_4 = ModelPrice(Decimal("0.00003"), Decimal("0.00006"), Decimal("0.000015"))
LONG = "The sea was calm that morning and nobody spoke. " * 150
"""Longer than the part of a prompt that a model caches."""
PATIENCE = 180.0


@dataclass(frozen=True, slots=True)
class Tokens:
    """The usage in the model's answer to the caller."""

    prompt: int
    completion: int
    cached: int
    reasoning: int


class Spending(Protocol):
    """Calls the model with keys."""

    @property
    def billing(self) -> BillingGateway: ...

    async def new_key(self) -> SecretStr: ...

    async def call(self, key: SecretStr, text: str, preface: str = "Be brief.") -> Tokens | None:
        """The usage of the call; None if the model failed."""
        ...


async def logged(spending: Spending, *keys: SecretStr, calls: int) -> tuple[ModelCall, ...]:
    """The calls of these keys, as soon as so many are logged."""
    since, until = around_now()
    async with asyncio.timeout(PATIENCE):
        while True:
            log = await spending.billing.spend([fingerprint(key) for key in keys], since, until)
            if len(log.calls) >= calls:
                return log.calls
            await asyncio.sleep(0.2)


def around_now() -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - timedelta(minutes=10), now + timedelta(minutes=10)


class RealSpending:
    """Calls the stack's LiteLLM, behind which is the scripted model."""

    def __init__(self, billing: LiteLLMBilling, base_url: str, http: aiohttp.ClientSession) -> None:
        self.billing = billing
        self._url = f"{base_url}/v1/chat/completions"
        self._http = http

    async def new_key(self) -> SecretStr:
        user_id, key = str(uuid.uuid4()), SecretStr("sk-" + secrets.token_urlsafe(32))
        await self.billing.ensure_customer(user_id, f"{user_id}@example.com", Plan())
        await self.billing.ensure_key(user_id, key)
        return key

    async def call(self, key: SecretStr, text: str, preface: str = "Be brief.") -> Tokens | None:
        messages = [{"role": "system", "content": preface}, {"role": "user", "content": text}]
        body = {"model": MODEL, "messages": messages, "user": fingerprint(key)}
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
        async with self._http.post(self._url, json=body, headers=headers) as response:
            if response.status != 200:
                return None
            used = (await response.json())["usage"]
        return Tokens(
            used["prompt_tokens"],
            used["completion_tokens"],
            used["prompt_tokens_details"]["cached_tokens"],
            used["completion_tokens_details"]["reasoning_tokens"],
        )


class FakeSpending:
    """Adds calls to the fake's log, one per second, with a token per word."""

    def __init__(self, billing: FakeBilling) -> None:
        self.billing = billing
        self._numbers = itertools.count()
        self._prefaces: set[tuple[str, str]] = set()

    async def new_key(self) -> SecretStr:
        return SecretStr("sk-" + secrets.token_urlsafe(32))

    async def call(self, key: SecretStr, text: str, preface: str = "Be brief.") -> Tokens | None:
        failed = text.startswith("ERR")
        seen = (fingerprint(key), preface) in self._prefaces
        self._prefaces.add((fingerprint(key), preface))
        tokens = Tokens(
            prompt=len(f"{preface} {text}".split()),
            completion=0 if failed else 5,
            cached=len(preface.split()) if seen else 0,
            reasoning=3 if text == "REASON" else 0,
        )
        began = datetime.now(UTC) + timedelta(seconds=next(self._numbers))
        whole = (tokens.prompt - tokens.cached) * GPT_4.prompt + tokens.cached * GPT_4.cached
        self.billing.calls.append(
            ModelCall(
                request_id=str(uuid.uuid4()),
                key_hash=fingerprint(key),
                model=MODEL,
                outcome="failure" if failed else "success",
                prompt_tokens=tokens.prompt,
                completion_tokens=tokens.completion,
                cached_tokens=tokens.cached,
                reasoning_tokens=tokens.reasoning,
                cost=Decimal(0) if failed else whole + tokens.completion * GPT_4.completion,
                price=None if failed else GPT_4,
                started_at=began,
                ended_at=began + timedelta(seconds=0.5),
            )
        )
        return None if failed else tokens
