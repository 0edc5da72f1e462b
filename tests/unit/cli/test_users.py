"""`chat users`: each command reads its arguments before any service is called, and fails in a sentence."""

import pytest
from click.testing import CliRunner, Result

from server.cli.users import users
from tests.unit.config.test_settings import NEEDED

pytestmark = pytest.mark.usefixtures("logging_restored")

USER = "00000000-0000-4000-8000-000000000000"


def chat_users(*arguments: str, typed: str | None = None) -> Result:
    """Settings with addresses at which nothing listens."""
    environment = {name.upper(): value for name, value in NEEDED.items()}
    return CliRunner().invoke(users, arguments, env=environment, input=typed)


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--search", "ada@", "--status", "blocked", "--admins"),
        ("show", USER),
        ("create", "ada@example.com", "--name", "Ada"),
        ("block", USER, "--reason", "Spam"),
        ("unblock", USER),
        ("admin", USER, "on"),
        ("set-plan", USER, "default"),
        ("rotate-key", USER),
        ("usage", "--from", "2026-11-01", "--to", "2026-11-30"),
        ("audit", USER),
        ("audit",),
    ],
)
def test_an_unavailable_database_is_one_sentence(arguments: tuple[str, ...]) -> None:
    result = chat_users(*arguments)
    assert (result.exit_code, result.output) == (1, "Error: The database is not reachable right now.\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("list", "--status", "happy"), "'happy' is not one of"),
        (("admin", USER), "Missing argument"),
        (("admin", USER, "maybe"), "'maybe' is not one of"),
        (("admin", "ada@example.com", "on"), "not a valid UUID"),
        (("block", "ada@example.com"), "not a valid UUID"),
        (("usage", "--from", "yesterday"), "does not match the format"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_reason(arguments: tuple[str, ...], complaint: str) -> None:
    result = chat_users(*arguments)
    assert result.exit_code == 2
    assert complaint in result.output


def test_an_unknown_plan_is_named_with_the_known_ones() -> None:
    result = chat_users("set-plan", USER, "gold")
    assert (result.exit_code, result.output) == (1, "Error: There is no plan gold. The plans are: default.\n")


def test_a_password_is_asked_for_twice_and_not_shown() -> None:
    result = chat_users("create", "ada@example.com", "--ask-password", typed="secret-1\nsecret-2\nsecret-1\nsecret-1\n")
    assert "do not match" in result.output
    assert "secret" not in result.output
