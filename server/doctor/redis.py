"""Checks of the Redis between several instances: that it responds, is recent enough, and accepts writes."""

from contextlib import aclosing
from typing import Final

from server.adapters.redis.client import RedisClient
from server.adapters.redis.inspection import RedisInspection
from server.config.settings import Settings
from server.doctor.findings import Check, fail, ok
from server.ports import Finding, ReplicasUnavailableError

SERVICE: Final = "redis"
OLDEST: Final = (6, 2)


def checks(settings: Settings) -> list[Check]:
    """The checks; none if REDIS_URL is not set."""
    url = settings.redis_url
    if url is None:
        return []

    async def version() -> Finding:
        try:
            async with aclosing(RedisClient(url)) as client:
                return judge_version(await RedisInspection(client).version())
        except ReplicasUnavailableError:
            return fail("Redis does not answer at REDIS_URL", "Check its address and password, or empty REDIS_URL.")

    async def writes() -> Finding:
        try:
            async with aclosing(RedisClient(url)) as client:
                await RedisInspection(client).write()
        except ReplicasUnavailableError:
            return fail("Redis accepts no writes: it is full, or a replica", "Give it memory, or name the primary.")
        return ok("takes what is written to it")

    return [Check(SERVICE, "version", version, essential=True), Check(SERVICE, "writes", writes)]


def judge_version(version: str) -> Finding:
    """Judge the version: scripts and streams need 6.2."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers >= OLDEST:
        return ok(f"answers, version {version}")
    return fail(f"Redis {version} is too old", "Use Redis 6.2 or newer.")
