"""`chat doctor` as a process: missing settings are named, secrets are not shown, the exit code is set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from server.cli.main import main
from server.config.settings import Settings


def doctor(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it as a separate process, without any setting in its environment."""
    settings = {name.upper() for name in Settings.model_fields}
    env = {name: value for name, value in os.environ.items() if name not in settings}
    command = [sys.executable, "-m", "server", "doctor", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_every_missing_setting_is_named() -> None:
    done = doctor("--json")
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert {row["level"] for row in rows} == {"fail"}
    assert {row["message"].split(":")[0] for row in rows} == {
        "SUPABASE_URL", "SUPABASE_ANON_KEY", "SUPABASE_SERVICE_KEY", "LETTA_BASE_URL", "LITELLM_BASE_URL",
        "LITELLM_MASTER_KEY", "SECRET_KEY",
    }  # fmt: skip


def test_unavailable_services_are_reported_once_each_without_secrets(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    env = tmp_path / "env"
    env.write_text(
        f"SUPABASE_URL={nowhere}\nSUPABASE_ANON_KEY=sb_publishable_hidden1\nSUPABASE_SERVICE_KEY=sb_secret_hidden2\n"
        f"LETTA_BASE_URL={nowhere}\nLETTA_API_TOKEN=hidden3\nLITELLM_BASE_URL={nowhere}\nLITELLM_MASTER_KEY=sk-hidden4\n"
        "SECRET_KEY=hidden5-Jq3xV9tLw2ZkB7mNcR5yHdGf8\n"
    )
    done = doctor("--env-file", str(env))
    assert done.returncode == 1
    failed = [line.split()[1:3] for line in done.stdout.splitlines() if line.startswith("fail")]
    assert failed == [["supabase", "reachable"], ["litellm", "alive"], ["letta", "version"]]
    assert "hidden" not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [[], ["8d5b6a0e-7a3e-4bb5-9a52-111111111111", "--all"]])
def test_users_repair_needs_one_user_or_all(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, ["users", "repair", *arguments])
    assert done.exit_code == 2
    assert "Give either a USER_ID or --all." in done.output
