"""Which patches the Letta of the tests has: all, or those that CHAT_TEST_PATCHES names, such as `stop`; none if empty.

So the tests can run against Letta as it was released. Independent of pytest."""

import os
from collections.abc import Iterable
from typing import Final

from server.doctor.letta import SPEED_PATCHES

ALL: Final = frozenset(("stop", *SPEED_PATCHES))


def applied_patches() -> frozenset[str]:
    """Their names. Raises ValueError for a name that no patch has."""
    if (chosen := os.environ.get("CHAT_TEST_PATCHES")) is None:
        return ALL
    names = frozenset(filter(None, chosen.split(",")))
    if unknown := names - ALL:
        raise ValueError(f"CHAT_TEST_PATCHES names patches that do not exist: {', '.join(sorted(unknown))}")
    return names


def switches(without: Iterable[str]) -> dict[str, str]:
    """The variables that turn these patches off."""
    return {f"LETTA_PATCH_{name.upper()}": "off" for name in without}


def warned_about() -> frozenset[str]:
    """The doctor's checks that say which patches are missing, as `service name`."""
    missing = ALL - applied_patches()
    checks = {"letta stop": {"stop"}, "letta speed": set(SPEED_PATCHES)}
    return frozenset(check for check, patches in checks.items() if patches & missing)
