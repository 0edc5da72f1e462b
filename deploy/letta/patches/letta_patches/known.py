"""The Letta that the patches were written for, and a look at whether this is it."""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

VERSION: Final = "0.16.8"


class UnknownCodeError(Exception):
    """What a patch would change is not what it knows; the message names it."""


def digest(function: Callable[..., Any]) -> str:
    """Of a function's source, decorators included."""
    return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:16]


def require(known: Mapping[Callable[..., Any], str]) -> None:
    """Raises UnknownCodeError unless each function's source has its digest."""
    for function, expected in known.items():
        try:
            found = digest(function)
        except (OSError, TypeError):
            found = "no source"
        if found != expected:
            raise UnknownCodeError(f"{function.__module__}.{function.__qualname__} is another ({found})")
