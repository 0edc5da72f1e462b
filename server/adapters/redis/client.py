"""The client of Redis: calls of our scripts with deadlines; every failure becomes ReplicasUnavailableError.

A script may run twice, if the connection broke before its answer arrived. All scripts are idempotent.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final, TypeVar

import hiredis
import structlog
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from server.ports import ReplicasUnavailableError

log = structlog.get_logger(__name__)
T = TypeVar("T")

CALL_SECONDS: Final = 2.0
"""Redis answers within a millisecond, so after this time it counts as unavailable."""
CONCURRENT_CALLS: Final = 16
QUEUE_SECONDS: Final = 5.0
"""How long a call queues for a slot. Longer than a call, since many sessions opened at once are not an outage."""


@dataclass(frozen=True, slots=True)
class Script:
    """One of the scripts in scripts/, with the SHA-1 by which Redis identifies it."""

    text: str
    digest: str

    @classmethod
    def named(cls, name: str) -> "Script":
        text = (files("server.adapters.redis") / "scripts" / f"{name}.lua").read_text("utf-8")
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script."""

    script: Script
    keys: Sequence[bytes]
    arguments: Sequence[bytes | str | int]


class _FastPacking:
    """Packs pipelines with hiredis, at a seventh of the CPU. redis-py does so for its synchronous connections only."""

    def pack_commands(self, commands: Iterable[tuple[Any, ...]]) -> list[bytes]:
        return [hiredis.pack_command(command) for command in commands]


class RedisClient:
    """Owns the connections: close it with `aclose`."""

    def __init__(self, url: SecretStr, call_seconds: float = CALL_SECONDS) -> None:
        self.redis: Redis = Redis.from_url(
            url.get_secret_value(),
            socket_timeout=call_seconds,
            socket_connect_timeout=call_seconds,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # with RESP3, redis-py spends a third more on each published message
        )
        pool = self.redis.connection_pool  # whose connections are of another class for `rediss://`
        pool.connection_class = type("Connection", (_FastPacking, pool.connection_class), {})
        self._slots = asyncio.Semaphore(CONCURRENT_CALLS)

    async def aclose(self) -> None:
        await self.redis.aclose()

    async def run(self, call: Call) -> Any:
        """The script's answer. Raises ReplicasUnavailableError."""
        return (await self.run_all([call]))[0]

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """The scripts' answers, in order, in one round trip. Raises ReplicasUnavailableError if any could not run."""
        answers = await self.bounded(lambda: self._pipelined(calls))
        if any(isinstance(answer, NoScriptError) for answer in answers):
            # Redis has restarted. Calls that did run may run again.
            for script in {call.script for call in calls}:
                await self.bounded(partial(self.redis.script_load, script.text))
            answers = await self.bounded(lambda: self._pipelined(calls))
        for answer in answers:
            if isinstance(answer, RedisError):
                log.warning("redis.refused", reason=type(answer).__name__, message=str(answer)[:100])
                raise ReplicasUnavailableError(str(answer)) from answer
        return answers

    async def _pipelined(self, calls: Sequence[Call]) -> list[Any]:
        pipeline = self.redis.pipeline(transaction=False)
        for call in calls:
            pipeline.evalsha(call.script.digest, len(call.keys), *call.keys, *call.arguments)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def bounded(self, call: Callable[[], Awaitable[T]]) -> T:
        """One call, retried once if its connection was broken. Raises ReplicasUnavailableError."""
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._slots.acquire()
            try:
                return await self._called(call)
            finally:
                self._slots.release()
        except (RedisError, OSError, TimeoutError) as error:
            raise ReplicasUnavailableError(f"Redis did not answer: {type(error).__name__}") from error

    async def _called(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except RedisConnectionError:
            # The other idle connections broke with it.
            await self.redis.connection_pool.disconnect(inuse_connections=False)
            return await call()
