"""No command prints the value of a secret setting, also if it or another setting is invalid."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydantic import SecretStr

from server.cli.main import COMMANDS, main
from server.config.settings import Settings
from tests.stack.forked import run_chat
from tests.unit.config.test_settings import NEEDED

pytestmark = pytest.mark.usefixtures("logging_restored")

SECRETS = sorted(name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation))
MARK = "hush7me"
USER = "00000000-0000-4000-8000-000000000000"
URLS = {
    "supabase_db_url": "postgresql",
    "letta_db_url": "postgresql",
    "litellm_db_url": "postgresql",
    "redis_url": "redis",
}
FORMED = {
    "supabase_anon_key": "sb_publishable_hush7me",
    "supabase_service_key": "sb_secret_hush7me",
    "supabase_db_url": "postgresql://u:hush7me@127.0.0.1:9/postgres",
    "letta_db_url": "postgresql://u:hush7me@127.0.0.1:9/letta",
    "litellm_db_url": "postgresql://u:hush7me@127.0.0.1:9/litellm",
    "redis_url": "redis://u:hush7me@127.0.0.1:9/0",
}
"""Well-formed values; for other settings the mark alone is well-formed. Nothing listens on port 9."""
MALFORMED = (
    "hush7me\n",
    "hush7me\nhush7me",
    "hush7me\x1b[31m",
    "'hush7me'",
    "hush7me ö \u202e",
    "{scheme}://hush7me",
    "{scheme}://u:hush7me@x@127.0.0.1:9/postgres",
    "{scheme}://u:x/hush7me@127.0.0.1:9/postgres",
    "{scheme}://u:x#hush7me@127.0.0.1:9/postgres",
    "{scheme}://u:hush7me%zz@127.0.0.1:9/postgres",
    "{scheme}://u:x@127.0.0.1:hush7me/postgres",
    "{scheme}://u:x@[hush7me/postgres",
    "{scheme}://u:x@127.0.0.1:9/postgres?hush7me",
    "{scheme}://u:x@127.0.0.1:9/postgres?sslmode=hush7me",
    "host=127.0.0.1 port=9 password='hush7me",
    "https://u:hush7me@127.0.0.1:9",
    "sb_secret_hush7me",
    "sb_publishable_hush7me",
)
INVOCATIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "up": (("up", "--data-dir", "/dev/null/x"),),
    "talk": (("talk", "--url", "http://127.0.0.1:9", "--api-key", MARK, "Hello"),),
    "down": (("down", "--data-dir", "/dev/null/x"),),
    "status": (("status", "--data-dir", "/dev/null/x"),),
    "logs": (("logs", "server", "--data-dir", "/dev/null/x"),),
    "mails": (("mails", "--data-dir", "/dev/null/x"),),
    "serve": (("serve",),),
    "users": (
        ("users", "list"),
        ("users", "repair", USER),
        ("users", "reencrypt", USER),
        ("users", "rotate-key", USER),
        ("users", "set-budget", USER, "--unlimited"),
        ("users", "delete", USER, "--yes"),
        ("users", "export", USER),
        ("users", "purge"),
    ),
    "billing": (("billing", "audit", USER), ("billing", "settle", USER)),
    "doctor": (("doctor",), ("doctor", "--json")),
    "migrate": (("migrate",),),
}
ALL = [arguments for every in INVOCATIONS.values() for arguments in every]


def environment(**changed: str) -> dict[str, str]:
    values = NEEDED | {name: FORMED.get(name, MARK) for name in SECRETS} | changed
    return {name.upper(): value for name, value in values.items()}


def invoke(arguments: tuple[str, ...], env: Mapping[str, str]) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
        return CliRunner().invoke(main, arguments, env=env)


def shown(result: Result) -> str:
    """The complete output, including a traceback."""
    error = result.exception
    words = [result.output]
    while error is not None:
        words.append(repr(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(words)


def test_every_command_and_every_secret_is_covered() -> None:
    assert set(INVOCATIONS) == set(COMMANDS)
    assert len(SECRETS) == 11
    assert all(isinstance(getattr(Settings.model_validate(environment_fields()), name), SecretStr) for name in SECRETS)


def environment_fields() -> dict[str, str]:
    return {name.lower(): value for name, value in environment().items()}


@pytest.mark.parametrize("malformed", MALFORMED)
@pytest.mark.parametrize("name", SECRETS)
def test_no_command_shows_a_malformed_secret(name: str, malformed: str) -> None:
    """The commands that refuse malformed settings; `serve` and those that would continue are tested below."""
    env = environment(**{name: malformed.format(scheme=URLS.get(name, "https"))})
    for arguments in (("migrate",), ("doctor", "--json")) if name in URLS else (("users", "list"),):
        result = invoke(arguments, env)
        assert MARK not in shown(result), arguments
        assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [one for one in ALL if one != ("serve",)], ids=" ".join)
@pytest.mark.parametrize("missing", ["", "LETTA_BASE_URL"])
def test_no_command_shows_any_secret(arguments: tuple[str, ...], missing: str) -> None:
    env = {name: value for name, value in environment().items() if name != missing}
    result = invoke(arguments, env)
    assert result.exit_code != 0 or arguments[0] == "status"
    assert MARK not in shown(result)


@pytest.mark.parametrize("name", SECRETS)
def test_a_server_that_does_not_start_shows_no_secret(name: str) -> None:
    """A separate process, since it changes signal handlers and logging."""
    done = run_chat("serve", env={"PATH": os.environ["PATH"], **environment(**{name: f"{MARK}\n{MARK}"})})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"chat: {name.upper()}: ")
    assert MARK not in done.stdout + done.stderr


def test_a_binary_file_of_settings_is_refused_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_bytes(b"SECRET_KEY=hush7me\xff\xfe\n")
    result = invoke(("users", "list", "--env-file", str(file)), {})
    assert result.output == f"Error: {file} is no text in UTF-8\n"
