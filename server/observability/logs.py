"""Configuration of logging: structured lines, readable in development, JSON in production, without secrets."""

import io
import json
import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Literal, TextIO

import orjson
import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError
from pydantic import SecretStr

from server.terminal import printable

Processor = Callable[[Any, str, MutableMapping[str, Any]], Any]

_SECRET_NAMES: Final = frozenset(
    {"authorization", "api_key", "key", "litellm_key", "password", "secret", "ticket", "token"}
    | {"access_token", "refresh_token", "content", "text"}
)
_UNPRINTABLE: Final = re.compile(r"[^ -~]+")
_OWN: Final = "server"
_CHATTY: Final = ("aiohttp.access", "httpx", "httpcore", "hpack")


def configure_logging(
    environment: Literal["development", "production", "test"], level: str, stream: TextIO = sys.stdout
) -> None:
    """Route structlog and the standard library's loggers into one stream, in one format.

    `level` is a name such as INFO. DEBUG is for our own code: at that level libraries log whole requests, with keys and
    messages in them. Values bound with `structlog.contextvars` (request_id, user_id, turn_id) are part of every line
    written while they are bound, libraries' lines included.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_secrets,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(environment == "production", stream),
            ],
        )
    )
    lowest = logging.getLevelNamesMapping()[level]
    logging.basicConfig(handlers=[handler], level=max(logging.INFO, lowest), force=True)
    logging.getLogger(_OWN).setLevel(lowest)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(quote_no_request)
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _rendering(production: bool, stream: TextIO) -> list[Processor]:
    if production:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_to_json)]
    renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_printable_traceback)
    return [_make_printable, renderer]


def _make_printable(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters from outside, which would act on the terminal that shows the log."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = printable(value, keep="\n" if name in ("exception", "stack") else "")
    return event


def _printable_traceback(stream: TextIO, exc_info: Any) -> None:
    written = io.StringIO()
    structlog.dev.plain_traceback(written, exc_info)
    stream.write(printable(written.getvalue(), keep="\n\t"))


def quote_no_request(record: logging.LogRecord) -> bool:
    """A filter that reduces parse errors of aiohttp to their type: aiohttp quotes the request, which may hold a
    token."""
    error = record.exc_info[1] if record.exc_info else None
    causes: list[BaseException] = []
    while error is not None:
        causes.append(error)
        error = error.__cause__ or error.__context__
    if any(isinstance(cause, HttpProcessingError | RequestPayloadError) for cause in causes):
        record.msg, record.args = "malformed request: %s", (type(causes[0]).__name__,)
        record.exc_info = record.exc_text = None
    return True


def hide_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace values that have a secret's name or are a SecretStr. A safeguard: callers must not log secrets."""
    for name, value in event.items():
        if name in _SECRET_NAMES or isinstance(value, SecretStr):
            event[name] = "[hidden]"
    return event


def _to_json(event: Any, **_options: Any) -> str:
    try:
        line = orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate, or a type that orjson does not support
        return json.dumps(event, default=str)
    return line if line.isprintable() else _UNPRINTABLE.sub(_escape, line)


def _escape(found: re.Match[str]) -> str:
    """Escape unprintable characters as JSON does in ASCII."""
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in found[0])
