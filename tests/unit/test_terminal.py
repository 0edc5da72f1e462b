"""No command writes control characters from outside to an operator's terminal."""

import io
import json
import re
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import structlog
from click.testing import CliRunner

import server.cli.main as cli
from server.cli import users_accounts
from server.cli.doctor import table
from server.doctor.findings import fail, warn
from server.observability.logs import configure_logging
from server.ports import Diagnosis
from server.protocol.shapes import AgentStatus
from server.terminal import echo_log, printable
from tests.unit.config.test_settings import NEEDED

pytestmark = pytest.mark.usefixtures("logging_restored")

SERVER = Path(__file__).parents[2] / "server"
HOSTILE = "a\x1b[2Jb\x07\r\n\u202ec\u2066d\u200be\x9bf\u2028g\x7fh\U000e0041i\ud800j\x00k\u061cl"


def harmless(text: str, but: str = "\n") -> bool:
    """Whether the text has no control, format, surrogate or separator character."""
    return all(one in but or one == " " or unicodedata.category(one)[0] not in "CZ" for one in text)


def test_control_characters_are_escaped() -> None:
    assert printable("\x1b[2J\r\n\u202e\x9b") == r"\x1b[2J\r\n\u202e\x9b"
    assert harmless(printable(HOSTILE), but="")
    assert printable("Ünïcode, 漢字 and 🙂 stay") == "Ünïcode, 漢字 and 🙂 stay"


def test_every_control_character_is_escaped() -> None:
    codepoints = [*range(0x3000), *range(0xD800, 0xE000), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0200)]
    assert [hex(one) for one in codepoints if not harmless(printable(chr(one)), but="")] == []


def test_commands_write_only_through_one_module() -> None:
    found = [
        f"{path.relative_to(SERVER)}: {line.strip()}"
        for path in SERVER.rglob("*.py")
        if path.name not in ("terminal.py", "codes_doc.py") and "demo_model" not in path.parts
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"click\.(echo|secho|style)\(|^\s*print\(|sys\.std(out|err)\.write", line)
    ]
    assert found == []


def test_users_list_escapes_a_hostile_account(monkeypatch: pytest.MonkeyPatch) -> None:
    account = SimpleNamespace(
        user_id="u", agent_status=AgentStatus.FAILED, email=HOSTILE, status_reason=f"because {HOSTILE}"
    )

    @asynccontextmanager
    async def context(_settings: object) -> AsyncIterator[Any]:
        async def search(*_: object) -> tuple[list[Any], bool]:
            return [SimpleNamespace(account=account)], False

        yield SimpleNamespace(admin=SimpleNamespace(search=search))

    monkeypatch.setattr(users_accounts, "open_operator_context", context)
    environment = {name.upper(): value for name, value in NEEDED.items()}
    result = CliRunner().invoke(cli.main, ["users", "list"], env=environment)
    assert result.exit_code == 0, result.output
    (line,) = result.output.splitlines()
    assert harmless(line)
    assert "because" in line


def test_doctor_escapes_a_hostile_response() -> None:
    shown = table([Diagnosis("letta", "version", fail(HOSTILE, HOSTILE)), Diagnosis("x", "y", warn("w", "m"))])
    assert harmless(re.sub(r"\x1b\[\d+m", "", shown))
    assert len(shown.splitlines()) == 4


@pytest.mark.parametrize("kind", [click.ClickException, click.UsageError, click.BadParameter])
def test_a_commands_error_is_escaped(kind: type[click.ClickException], monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def refuse() -> None:
        raise kind(f"no: {HOSTILE}")

    monkeypatch.setattr(cli.MainGroup, "get_command", lambda *_: refuse)
    result = CliRunner().invoke(cli.main, ["doctor"])
    assert result.exit_code == kind("").exit_code
    assert "no: a\\x1b[2Jb" in result.output
    assert harmless(result.output)


def test_a_command_without_arguments_shows_its_help() -> None:
    result = CliRunner().invoke(cli.main, ["users"])
    assert "Manage the platform's users." in result.output


def test_a_services_log_is_printed_escaped_and_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    echo_log(f"\x1b[1;32mINFO\x1b[0m \x1b[8mhidden\tx {HOSTILE}")
    shown = capsys.readouterr().out
    assert shown.startswith("INFO hidden\tx a\\x1b[2Jb")
    assert harmless(shown, but="\n\t")


@pytest.mark.parametrize("environment", ["development", "production"])
def test_log_lines_are_escaped(environment: Any) -> None:
    stream = io.StringIO()
    configure_logging(environment, "INFO", stream)
    log = structlog.get_logger("x")
    log.info("http.request", path=HOSTILE, headers=[HOSTILE], nested={HOSTILE: HOSTILE})
    try:
        int(HOSTILE)
    except ValueError:
        log.exception("http.failed", origin=HOSTILE)
    lines = stream.getvalue()
    assert harmless(lines)
    if environment == "production":
        first, second = (json.loads(line) for line in lines.splitlines())
        assert first["path"] == HOSTILE
        assert "ValueError" in second["exception"]
