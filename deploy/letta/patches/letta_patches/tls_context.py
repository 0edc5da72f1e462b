"""One TLS context for all HTTP clients of the process: Letta creates a client, and so a context, for each model call.

A context reads and parses 140 certificates, which took a third of the event loop's time: 0.09 CPU seconds a turn. It
is created even for a model behind plain HTTP.
"""

import functools
import importlib
import inspect
import ssl
from typing import Any, Final

from letta_patches.known import UnknownCodeError

_PARAMETERS: Final = ["verify", "cert", "trust_env"]
"""Of httpx's `create_ssl_context`, the same in its releases 0.28. The image may have another one than the lock."""


def apply() -> None:
    """Share the contexts that httpx creates without a client certificate. Raises UnknownCodeError."""
    default: Any = importlib.import_module("httpx._transports.default")
    found = list(inspect.signature(default.create_ssl_context).parameters)
    if found != _PARAMETERS:
        raise UnknownCodeError(f"httpx creates a TLS context from {found}")
    default.create_ssl_context = _shared(default.create_ssl_context)


def _shared(create: Any) -> Any:
    @functools.cache
    def of(verify: bool, trust_env: bool) -> ssl.SSLContext:
        context: ssl.SSLContext = create(verify=verify, trust_env=trust_env)
        return context

    @functools.wraps(create)
    def create_ssl_context(verify: Any = True, cert: Any = None, trust_env: bool = True) -> Any:
        if cert is None and isinstance(verify, bool):
            return of(verify, trust_env)
        return create(verify=verify, cert=cert, trust_env=trust_env)

    return create_ssl_context
