"""`chat users set-budget`: validation of its options, before any service is called."""

import pytest
from click.testing import CliRunner, Result

from server.cli.users import users
from tests.unit.config.test_settings import NEEDED

pytestmark = pytest.mark.usefixtures("logging_restored")

USER = "00000000-0000-4000-8000-000000000000"


def set_budget(*arguments: str) -> Result:
    """Settings with addresses at which nothing listens."""
    environment = {name.upper(): value for name, value in NEEDED.items()}
    return CliRunner().invoke(users, ["set-budget", *arguments], env=environment)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "Say what to change"),
        (("--budget", "much"), "much is no amount of US dollars"),
        (("--budget", "-1"), "-1 is no amount of US dollars"),
        (("--budget", "NaN"), "NaN is no amount of US dollars"),
        (("--budget", "Infinity"), "Infinity is no amount of US dollars"),
        (("--budget", "0.1234567890123456"), "more than 15 digits"),
        (("--budget", "1", "--unlimited"), "either --budget or --unlimited"),
        (("--period", "1y"), "1y is no period"),
        (("--period", "30d; drop"), "is no period"),
        (("--tokens-per-minute", "0"), "0 is no number between 1 and"),
        (("--requests-per-minute", "2147483648"), "is no number between 1 and 2147483647"),
        (("--requests-per-minute", "ten"), "ten is no number"),
        (("--models", "mini"), "gpt-4, which every agent uses, must be one of them"),
        (("--models", ","), "gpt-4, which every agent uses, must be one of them"),
    ],
)
def test_an_invalid_option_is_refused_with_its_reason(arguments: tuple[str, ...], complaint: str) -> None:
    result = set_budget(USER, *arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())


def test_a_user_must_be_given_by_id() -> None:
    assert set_budget("ann@example.com", "--unlimited").exit_code == 2


def test_an_unavailable_service_is_one_sentence() -> None:
    result = set_budget(USER, "--budget", "0")
    assert (result.exit_code, result.output) == (1, "Error: The database is not reachable right now.\n")
