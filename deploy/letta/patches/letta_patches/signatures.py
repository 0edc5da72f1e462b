"""The signature and the type hints of each checked function are read once, not at each call.

Letta checks the arguments of its methods at run time, some hundred times a turn, and evaluates the annotations anew
each time. The checks stay.
"""

import functools
import inspect
from types import ModuleType
from typing import Any, Final

from letta_patches.known import require

_KNOWN: Final = {"enforce_types": "e650fabf3e7a0ebb", "raise_on_invalid_id": "2e40ba070af5a94c"}


def apply() -> None:
    """Cache what `enforce_types` and `raise_on_invalid_id` read. Raises UnknownCodeError."""
    from letta import utils, validators

    decorators = (utils.enforce_types, validators.raise_on_invalid_id)
    require({decorator: _KNOWN[decorator.__name__] for decorator in decorators})
    utils.get_type_hints = functools.cache(utils.get_type_hints)
    utils.inspect = with_cached("getfullargspec")
    validators.inspect = with_cached("signature")


def with_cached(name: str) -> Any:
    """The module `inspect` with a cache for one of its functions."""
    module = ModuleType("inspect", inspect.__doc__)
    module.__dict__.update(inspect.__dict__)
    setattr(module, name, functools.cache(getattr(inspect, name)))
    return module
