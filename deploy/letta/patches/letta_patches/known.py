"""The Letta release that the patches were written for, and a check of its code."""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

VERSION: Final = "0.16.8"


class NotApplicableError(Exception):
    """The patch must not be applied here; the message says why."""


class UnknownCodeError(NotApplicableError):
    """The code to patch differs from the known one; the message names it."""


def digest(function: Callable[..., Any]) -> str:
    """Digest of a function's source, including decorators."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


def require(known: Mapping[Callable[..., Any], str]) -> None:
    """Raise UnknownCodeError unless each function's source has the given digest."""
    for function, expected in known.items():
        try:
            found = digest(function)
        except (OSError, TypeError):
            found = "no source"
        if found != expected:
            raise UnknownCodeError(f"{function.__module__}.{function.__qualname__} is another ({found})")
