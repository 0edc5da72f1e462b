"""Checks, their findings, and running a list of checks so that an error in one does not affect the others."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from server.protocol.errors import PlatformError
from server.resilience import ServiceError

Level = Literal["ok", "warn", "fail"]

CHECK_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """`message` describes the state or the problem; `remedy` how to fix it, empty for ok."""

    level: Level
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of one service. If an `essential` one fails, the later checks of its service are skipped."""

    service: str
    name: str
    run: Callable[[], Awaitable[Finding]]
    essential: bool = False


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A finding with the service and name of its check."""

    service: str
    name: str
    finding: Finding


def ok(message: str) -> Finding:
    return Finding("ok", message)


def warn(message: str, remedy: str) -> Finding:
    return Finding("warn", message, remedy)


def fail(message: str, remedy: str) -> Finding:
    return Finding("fail", message, remedy)


async def examine(checks: Sequence[Check]) -> list[Diagnosis]:
    """Run the checks of one service in order. An error of a check becomes a finding."""
    diagnoses = []
    for check in checks:
        finding = await _find(check)
        diagnoses.append(Diagnosis(check.service, check.name, finding))
        if check.essential and finding.level == "fail":
            break
    return diagnoses


async def _find(check: Check) -> Finding:
    remedy = f"See that {check.service} is running, and try again."
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check.run()
    except TimeoutError:
        return fail(f"no answer within {CHECK_SECONDS:.0f} s", remedy)
    except (ServiceError, PlatformError) as error:
        return fail(str(error) if isinstance(error, ServiceError) else error.message, remedy)
    except Exception as error:
        # Without its message, which may quote a setting's value.
        return fail(f"this could not be checked ({type(error).__name__})", remedy)
