"""Readiness of this instance for traffic: its phase, and the state of its dependencies."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import structlog

from server.ports import Probe
from server.protocol.shapes import Json

log = structlog.get_logger(__name__)

Phase = Literal["starting", "running", "draining"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The state of one dependency. `error` has no details, since it is shown without authentication."""

    status: Literal["up", "down"]
    latency_ms: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The response of `/ready`."""

    status: Literal["ready", "degraded", "starting", "draining"]
    checks: dict[str, CheckResult]

    @property
    def takes_traffic(self) -> bool:
        return self.status in ("ready", "degraded")

    def wire(self, version: str) -> Json:
        checks = {name: asdict(check) for name, check in self.checks.items()}
        return {"status": self.status, "version": version, "checks": checks}


class Readiness:
    """Pings all dependencies concurrently, each with a timeout of `timeout` seconds.

    Results are cached for `ttl` seconds and concurrent requests share one round, so `/ready` cannot overload the
    services. With an unavailable dependency the instance is degraded, not unready: the rest of the API works, and
    taking all instances out of rotation would make the outage of a shared service a complete one. But an instance that
    has not yet reached each of `needed_first` is starting: its settings may be wrong, so it should not replace another.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        phase: Callable[[], Phase],
        *,
        needed_first: Iterable[str] = (),
        timeout: float = 2.0,
        ttl: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probes = tuple(probes)
        self._phase = phase
        self._missing = set(needed_first)
        self._timeout = timeout
        self._ttl = ttl
        self._clock = clock
        self._round = asyncio.Lock()
        self._checks: dict[str, CheckResult] = {}
        self._checked_at: float | None = None

    async def report(self) -> Report:
        """The instance's state, with checks at most `ttl` seconds old."""
        async with self._round:
            if self._checked_at is None or self._clock() - self._checked_at >= self._ttl:
                async with asyncio.TaskGroup() as round_:
                    pings = {probe.name: round_.create_task(self._check(probe)) for probe in self._probes}
                self._checks = {name: ping.result() for name, ping in pings.items()}
                self._checked_at = self._clock()
                self._missing -= {name for name, check in self._checks.items() if check.status == "up"}
        return Report(self._status(), self._checks)

    def _status(self) -> Literal["ready", "degraded", "starting", "draining"]:
        if (phase := self._phase()) != "running":
            return phase
        if self._missing:
            return "starting"
        return "ready" if all(check.status == "up" for check in self._checks.values()) else "degraded"

    async def _check(self, probe: Probe) -> CheckResult:
        began = self._clock()
        error = None
        try:
            async with asyncio.timeout(self._timeout):
                await probe.ping()
        except TimeoutError:
            error = f"no answer within {self._timeout:g} s"
        except Exception as cause:  # any error of a probe means that only this service is down
            error = "unreachable or unhealthy"
            log.debug("probe.failed", service=probe.name, reason=repr(cause))
        return CheckResult("down" if error else "up", round((self._clock() - began) * 1000, 1), error)
