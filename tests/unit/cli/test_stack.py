"""The commands of the local stack."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from server.cli.main import COMMANDS, main
from server.stack import instance
from server.stack.instance import ServiceState, State
from server.stack.layout import Layout
from server.stack.mails import Mail
from server.stack.stack_env import DEMO_USER, stack_environment, write_stack_env
from server.stack.up import invitation, local_services, welcome


def chat(*arguments: str, typed: str = "") -> tuple[int, str]:
    """Exit code and output of `chat …`."""
    done = CliRunner().invoke(main, list(arguments), input=typed)
    return done.exit_code, done.output


def test_help_lists_every_command() -> None:
    code, text = chat("--help")
    assert code == 0
    assert all(name in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name


def test_an_unknown_command_is_refused() -> None:
    assert chat("dance")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (("--help",), {"asyncio", "pydantic", "structlog"}),
        (("status",), {"httpx", "psycopg", "pydantic", "structlog"}),
        (("users", "list", "--help"), {"psycopg"}),
    ],
)
def test_a_command_loads_only_what_it_needs(arguments: tuple[str, ...], unneeded: set[str], tmp_path: Path) -> None:
    run = f"import sys; from server.cli.main import main; main({arguments!r}, standalone_mode=False)"
    code = f"{run}; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "click" in done.stderr.split()
    assert not unneeded & set(done.stderr.split())


def test_a_refusal_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    code, text = chat("up", "--data-dir", str(tmp_path))
    assert code == 1
    assert text.startswith("chat: ")
    assert text.count("\n") == 1


def test_status_shows_a_table_and_json(layout: Layout) -> None:
    instance.write_state(layout.root, [ServiceState("letta", 21000, State.RUNNING, 1, 1)])
    assert "letta      stopped" in chat("status", "--data-dir", str(layout.root))[1]
    _, text = chat("status", "--json", "--data-dir", str(layout.root))
    assert '"name": "letta"' in text


def test_wipe_asks_for_confirmation(layout: Layout) -> None:
    code, _ = chat("down", "--wipe", "--data-dir", str(layout.root), typed="n\n")
    assert code == 1
    assert layout.root.exists()
    code, text = chat("down", "--wipe", "--data-dir", str(layout.root), typed="y\n")
    assert code == 0
    assert "Nothing was running." in text
    assert not layout.root.exists()


def test_wipe_with_yes_does_not_ask(layout: Layout) -> None:
    assert chat("down", "--wipe", "--yes", "--data-dir", str(layout.root))[0] == 0
    assert not layout.root.exists()


def test_logs_show_the_last_lines(layout: Layout) -> None:
    layout.log("letta").write_text("one\ntwo\nthree\n")
    assert chat("logs", "letta", "-n", "2", "--data-dir", str(layout.root)) == (0, "two\nthree\n")


@pytest.mark.parametrize(
    ("environ", "runs"),
    [({}, True), ({"OPENAI_API_KEY": "sk-one"}, False), ({"OPENAI_API_KEY": ""}, True)],
    ids=["no key", "a key", "an empty key"],
)
def test_the_demo_model_runs_without_an_api_key(layout: Layout, environ: dict[str, str], runs: bool) -> None:
    services = local_services(Layout(layout.root, 8080, environ), with_server=True)
    assert ("model" in {service.name for service in services}) is runs
    assert services[-1].name == "server"


def test_every_service_depends_only_on_existing_services(layout: Layout) -> None:
    services = local_services(layout, with_server=True)
    names = {service.name for service in services}
    assert all(set(service.depends_on) <= names for service in services)


def test_the_servers_environment_has_no_redis(layout: Layout) -> None:
    write_stack_env(layout)
    file = layout.root / "stack.env"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "REDIS_URL" not in stack_environment(layout)
    assert "# REDIS_URL=redis://127.0.0.1:" in file.read_text()


@pytest.mark.parametrize(("key", "is_demo"), [({}, "true"), ({"OPENAI_API_KEY": "sk-one"}, "false")])
def test_the_server_knows_whether_the_demo_model_answers(layout: Layout, key: dict[str, str], is_demo: str) -> None:
    assert stack_environment(Layout(layout.root, 8080, key))["DEMO_MODEL"] == is_demo


def test_a_demo_user_is_offered_unless_addresses_are_confirmed(layout: Layout) -> None:
    assert stack_environment(Layout(layout.root, 8080, {}))["DEMO_USER"] == DEMO_USER
    confirming = Layout(layout.root, 8080, {"STACK_CONFIRM_EMAIL": "true"})
    assert stack_environment(confirming)["DEMO_USER"] == ""


def test_the_last_line_of_chat_up_names_the_address_and_how_to_get_in(layout: Layout) -> None:
    line = invitation(Layout(layout.root, 8123, {}))
    assert "\n" not in line
    assert line.startswith("Open http://127.0.0.1:8123 in a browser")
    assert "demo user" in line
    confirming = invitation(Layout(layout.root, 8123, {"STACK_CONFIRM_EMAIL": "true"}))
    assert "demo user" not in confirming
    assert "chat mails" in confirming


def test_chat_up_says_whether_the_demo_model_answers_and_shows_no_key(layout: Layout) -> None:
    assert "OPENAI_API_KEY=sk-… uv run chat up" in welcome(Layout(layout.root, 8123, {}), 12.3, "letta: start 9 s")
    real = welcome(Layout(layout.root, 8123, {"OPENAI_API_KEY": "sk-hush", "AGENT_MODEL": "gpt-5"}), 12.3, "")
    assert "gpt-5" in real
    assert "demo" not in real
    assert "sk-hush" not in real


def test_mails_of_a_stack_without_mails(layout: Layout) -> None:
    assert chat("mails", "--data-dir", str(layout.root)) == (0, "No mails.\n")
    assert chat("mails", "--json", "--data-dir", str(layout.root)) == (0, "[]\n")


def test_mails_of_a_folder_without_a_stack(tmp_path: Path) -> None:
    code, text = chat("mails", "--data-dir", str(tmp_path / "nothing"))
    assert code == 1
    assert text.startswith("chat: ")


def test_a_mails_address_is_escaped(layout: Layout) -> None:
    mail = Mail("2026-11-28T12:00:00Z", "\x1b[2Ja\u202e@b.co", "Hi\n", None, None, None, "Hi")
    layout.folder("supabase").joinpath("mails.jsonl").write_text(json.dumps(asdict(mail)) + "\n")

    _, text = chat("mails", "--data-dir", str(layout.root))

    assert text == "2026-11-28T12:00:00Z  \\x1b[2Ja\\u202e@b.co  Hi\\n\n"


def test_an_incomplete_mail_is_not_shown(layout: Layout) -> None:
    layout.folder("supabase").joinpath("mails.jsonl").write_text('{"at": "2026-11-2')
    assert chat("mails", "--data-dir", str(layout.root)) == (0, "No mails.\n")
