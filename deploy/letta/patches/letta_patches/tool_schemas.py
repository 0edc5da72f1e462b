"""The JSON schema of each of Letta's own tools is generated once, not for each agent that is loaded.

Letta parses the docstring and the signature of each tool whenever it reads an agent, three times a turn.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any, Final

from letta_patches.known import require

_KNOWN: Final = "02b6a4a39b58be30"


def apply() -> None:
    """Cache the schemas that `Tool` gets from modules. Raises UnknownCodeError."""
    from letta.schemas import tool

    require({tool.get_json_schema_from_module: _KNOWN})
    tool.get_json_schema_from_module = generated_once(tool.get_json_schema_from_module)


def generated_once(generate: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """The same function with a cache; each call returns a copy, which the caller may change."""
    cached = functools.cache(generate)

    @functools.wraps(generate)
    def schema(module_name: str, function_name: str) -> dict[str, Any]:
        return copy.deepcopy(cached(module_name, function_name))

    return schema
