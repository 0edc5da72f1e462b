"""Logs: one line per event, JSON in production, no secrets."""

import io
import logging

import orjson
import pytest
import structlog
from aiohttp.http_exceptions import InvalidHeader
from aiohttp.web import RequestPayloadError
from pydantic import SecretStr

from server.observability.logs import configure_logging


@pytest.fixture
def output(logging_restored: None) -> io.StringIO:
    return io.StringIO()


def test_production_writes_one_json_object_per_line_with_bound_values(output: io.StringIO) -> None:
    configure_logging("production", "INFO", output)
    with structlog.contextvars.bound_contextvars(request_id="r-1", user_id="ann"):
        structlog.get_logger("server.sessions").info("turn.ended", attempt=2)
        logging.getLogger("aiohttp.server").warning("odd %s", "thing")
    first, second = map(orjson.loads, output.getvalue().splitlines())
    assert (first["event"], first["attempt"], first["logger"], first["level"]) == (
        "turn.ended",
        2,
        "server.sessions",
        "info",
    )
    assert second["event"] == "odd thing"
    assert first["request_id"] == second["request_id"] == "r-1"
    assert first["timestamp"].endswith("Z")


@pytest.mark.parametrize("environment", ["development", "production"])
def test_secrets_are_hidden_in_every_form(output: io.StringIO, environment: str) -> None:
    configure_logging(environment, "INFO", output)  # type: ignore[arg-type]
    log = structlog.get_logger("x")
    log.info("one", token="hunter2", api_key="hunter2", authorization="hunter2", content="hunter2")
    log.info("two", anything=SecretStr("hunter2"))
    logging.getLogger("y").warning("three", extra={"password": "hunter2"})
    assert "hunter2" not in output.getvalue()
    assert output.getvalue().count("[hidden]") == 6


def _fail(password: str) -> None:
    raise RuntimeError(f"a password of {len(password)} characters is broken")


def test_a_traceback_is_part_of_its_line_and_contains_no_values(output: io.StringIO) -> None:
    configure_logging("production", "INFO", output)
    password = "".join(("hun", "ter2"))
    try:
        _fail(password)
    except RuntimeError:
        structlog.get_logger("x").exception("http.failed")
    (line,) = output.getvalue().splitlines()
    assert "RuntimeError: a password of 7 characters is broken" in orjson.loads(line)["exception"]
    assert password not in line


def test_lower_levels_are_not_logged(output: io.StringIO) -> None:
    configure_logging("production", "WARNING", output)
    structlog.get_logger("x").info("unimportant")
    logging.getLogger("httpx").info("GET http://supabase/?secret")
    assert output.getvalue() == ""


def test_at_debug_no_library_logs_its_requests(output: io.StringIO) -> None:
    configure_logging("production", "DEBUG", output)
    structlog.get_logger("server.sessions").debug("session.moved")
    logging.getLogger("letta_client._base_client").debug("Request options: {'json_data': {'api_key': 'hunter2'}}")
    logging.getLogger("any.other").info("of interest")
    assert [orjson.loads(line)["event"] for line in output.getvalue().splitlines()] == ["session.moved", "of interest"]


@pytest.mark.parametrize("environment", ["development", "production"])
def test_a_parse_error_of_aiohttp_is_logged_by_its_type_only(output: io.StringIO, environment: str) -> None:
    configure_logging(environment, "DEBUG", output)  # type: ignore[arg-type]
    error = RequestPayloadError("Bearer hunter2")
    error.__cause__ = InvalidHeader(b"Authorization: Bearer hunter2")
    logging.getLogger("aiohttp.server").error("Unhandled exception", exc_info=error)
    assert "malformed request: RequestPayloadError" in output.getvalue()
    assert "hunter2" not in output.getvalue()


def test_other_errors_of_the_server_are_logged_with_their_traceback(output: io.StringIO) -> None:
    configure_logging("production", "DEBUG", output)
    logging.getLogger("aiohttp.server").error("Unhandled exception", exc_info=RuntimeError("it is broken"))
    assert "RuntimeError: it is broken" in orjson.loads(output.getvalue())["exception"]
