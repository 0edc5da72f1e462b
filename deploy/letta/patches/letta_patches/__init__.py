"""Patches that this platform applies to a Letta server in Letta's process.

Runs in Letta's interpreter, with Letta's packages only. `PATCHES` are applied once, after Letta's app is created and
before it serves; `LETTA_PATCH_<NAME>=off` disables one. A patch is applied only to the code that it was written for.
The outcome of each is in Letta's log and at `GET /v1/patches`, which needs Letta's password like all routes. Whatever
is applied, the password stays out of the log.
"""

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

from letta_patches import (
    connection_tests,
    derived_keys,
    last_stop_reason,
    prepared_statements,
    signatures,
    stop,
    tls_context,
    tool_order,
    tool_schemas,
    unused_rows,
)
from letta_patches.known import VERSION, NotApplicableError

PATCHES: Final = (
    stop,
    tool_order,
    tls_context,
    prepared_statements,
    connection_tests,
    unused_rows,
    last_stop_reason,
    tool_schemas,
    signatures,
    derived_keys,
)
"""Modules with a docstring, whose first line is the reason, and `apply()`, which raises NotApplicableError."""
ROUTE: Final = "/v1/patches"
_APP: Final = "letta.server.rest_api.app"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a patch; `detail` is what it does, or why it was not applied."""

    name: str
    applied: bool
    detail: str


def install() -> None:
    """Apply the patches as soon as Letta's app is imported."""
    sys.meta_path.insert(0, _WhenLoaded())


def apply_to(app: Any) -> list[Outcome]:
    """Apply the patches, log their outcomes, and add a route with the outcomes to `app` (a FastAPI)."""
    from letta.log import get_logger

    log = get_logger("letta_patches")
    version = importlib.metadata.version("letta")
    outcomes = [_apply(patch, version) for patch in PATCHES]
    for outcome in outcomes:
        if outcome.applied:
            log.info("Patch %s is applied: %s", outcome.name, outcome.detail)
        else:
            log.warning("Patch %s is NOT applied: %s", outcome.name, outcome.detail)
    answer = {"letta": version, "patches": [asdict(outcome) for outcome in outcomes]}

    async def patches() -> dict[str, Any]:
        return answer

    app.add_api_route(ROUTE, patches, methods=["GET"], include_in_schema=False)
    return outcomes


def _apply(patch: ModuleType, version: str) -> Outcome:
    name = patch.__name__.rpartition(".")[2]
    switch = f"LETTA_PATCH_{name.upper()}"
    if os.environ.get(switch, "").lower() in ("off", "false", "0", "no"):
        return Outcome(name, applied=False, detail=f"{switch} turns it off")
    if version != VERSION:
        return Outcome(name, applied=False, detail=f"this is Letta {version}, it knows {VERSION}")
    try:
        patch.apply()
    except NotApplicableError as error:
        return Outcome(name, applied=False, detail=str(error))
    except Exception as error:  # an error here must not prevent Letta's start
        return Outcome(name, applied=False, detail=f"{type(error).__name__}: {error}")
    return Outcome(name, applied=True, detail=(patch.__doc__ or "").partition("\n")[0])


def hide_password(module: ModuleType) -> None:
    """Hide the configured password in what a module prints: Letta's app prints it at each start."""
    password = os.environ.get("LETTA_SERVER_PASSWORD")

    def printed(*values: object, **options: Any) -> None:
        shown = (str(one).replace(password, "[hidden]") if password else one for one in values)
        print(*shown, **options)  # noqa: T201

    module.__dict__["print"] = printed


class _WhenLoaded(MetaPathFinder):
    """Finds Letta's app as usual, and applies the patches after its import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _APP:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                hide_password(module)
                execute(module)
                apply_to(module.app)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
