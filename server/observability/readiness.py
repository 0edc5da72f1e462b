"""Whether this instance should get traffic: its phase, and whether its dependencies answer."""

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
    """How one dependency answered. `error` says only what anybody may know: this is shown without sign-in."""

    status: Literal["up", "down"]
    latency_ms: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What `/ready` answers."""

    status: Literal["ready", "degraded", "starting", "draining"]
    checks: dict[str, CheckResult]

    @property
    def takes_traffic(self) -> bool:
        return self.status in ("ready", "degraded")

    def wire(self, version: str) -> Json:
        checks = {name: asdict(check) for name, check in self.checks.items()}
        return {"status": self.status, "version": version, "checks": checks}


class Readiness:
    """Pings every dependency at once, each for at most `timeout` seconds.

    Answers are kept for `keep` seconds and askers at one moment share one round, so `/ready` cannot be used to hammer
    the services. A dead dependency makes the instance degraded, never unready: the rest of the API works without it,
    and taking every instance out of rotation for a shared service would turn its outage into ours. But an instance that
    has never reached each of `needed_first` is still starting: its settings may be wrong, and it should replace none.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        phase: Callable[[], Phase],
        *,
        needed_first: Iterable[str] = (),
        timeout: float = 2.0,
        keep: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probes = tuple(probes)
        self._phase = phase
        self._missing = set(needed_first)
        self._timeout = timeout
        self._keep = keep
        self._clock = clock
        self._round = asyncio.Lock()
        self._checks: dict[str, CheckResult] = {}
        self._checked_at: float | None = None

    async def report(self) -> Report:
        """The instance's state now, with checks at most `keep` seconds old."""
        async with self._round:
            if self._checked_at is None or self._clock() - self._checked_at >= self._keep:
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
        except Exception as cause:  # whatever a service does wrong, it is down and the rest is not
            error = "unreachable or unhealthy"
            log.debug("probe.failed", service=probe.name, reason=repr(cause))
        return CheckResult("down" if error else "up", round((self._clock() - began) * 1000, 1), error)
