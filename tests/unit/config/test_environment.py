"""Settings for commands, and what is said where they are missing."""

from pathlib import Path

import click
import pytest

from server.config.environment import require_settings


@pytest.fixture(autouse=True)
def empty_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SUPABASE_URL", "SECRET_KEY", "LETTA_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_command_beside_a_local_stack_says_how_to_use_its_settings(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"SECRET_KEY: is not set, and has no default$"):
        require_settings(None)
    local = tmp_path / ".chat" / "stack.env"
    local.parent.mkdir()
    local.write_text("ENVIRONMENT=development\n")
    with pytest.raises(click.ClickException, match=r"For the local stack add: --env-file \.chat/stack\.env$"):
        require_settings(None)
    with pytest.raises(click.ClickException, match=r"SECRET_KEY: is not set, and has no default$"):
        require_settings(local)
