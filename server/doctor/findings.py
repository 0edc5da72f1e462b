"""Checks, and running a list of them so that an error in one does not affect the others."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from server.ports import Diagnosis, Finding
from server.protocol.errors import PlatformError
from server.resilience import ServiceError

CHECK_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check of one service. If an `essential` one fails, the later checks of its service are skipped."""

    service: str
    name: str
    run: Callable[[], Awaitable[Finding]]
    essential: bool = False


def ok(message: str) -> Finding:
    return Finding("ok", message)


def warn(message: str, remedy: str) -> Finding:
    return Finding("warn", message, remedy)


def fail(message: str, remedy: str) -> Finding:
    return Finding("fail", message, remedy)


async def examine(checks: Sequence[Check], check_seconds: float = CHECK_SECONDS) -> list[Diagnosis]:
    """Run the checks of one service in order, each for at most `check_seconds`. An error of a check becomes a finding.
    After a check without an answer the later ones are skipped."""
    diagnoses: list[Diagnosis] = []
    for check in checks:
        try:
            async with asyncio.timeout(check_seconds):
                finding = await _find(check)
        except TimeoutError:
            finding = fail(f"no answer within {check_seconds:.0f} s", _remedy(check))
            return [*diagnoses, Diagnosis(check.service, check.name, finding)]
        diagnoses.append(Diagnosis(check.service, check.name, finding))
        if check.essential and finding.level == "fail":
            break
    return diagnoses


async def _find(check: Check) -> Finding:
    try:
        return await check.run()
    except TimeoutError:
        raise
    except (ServiceError, PlatformError) as error:
        return fail(str(error) if isinstance(error, ServiceError) else error.message, _remedy(check))
    except Exception as error:
        # Without its message, which may quote a setting's value.
        return fail(f"this could not be checked ({type(error).__name__})", _remedy(check))


def _remedy(check: Check) -> str:
    return f"See that {check.service} is running, and try again."
