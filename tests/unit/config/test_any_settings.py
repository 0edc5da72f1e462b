"""Whatever the environment holds: settings that work, or a sentence per variable that shows no secret."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server.app.clients import plans_of
from server.config.environment import settings_problems
from server.config.settings import Settings
from tests.unit.config.test_settings import NEEDED

MARK = "hush7me"
_MARKS = (MARK, " ", "\n", "\0", "\u202e", "é", "@", ":", "/", "?", "#", "[", "]", "%", "*", ",", "[]", "null")
_STARTS = ("https://", "http://", "redis://", "postgresql://u:", "sb_secret_", "sb_publishable_", "sk-", "eyJ.")
_WHOLE = ("127.0.0.1", "example.com", "0", "-1", "1e9", "99999999999", "nan", "true", "production", "30d", "1mo")
_PIECES = st.sampled_from((*_MARKS, *_STARTS, *_WHOLE, '{"pro": {"budget": "1"}}', "\ud800"))
_VALUES = st.lists(_PIECES, max_size=6).map("".join) | st.text(max_size=20)
_ENVIRONMENTS = st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), _VALUES, max_size=6)

SECRETS = frozenset(name for name, one in Settings.model_fields.items() if "SecretStr" in str(one.annotation))
SECRET_NAMES = ("settings:", *(f"{name.upper()}:" for name in SECRETS))
"""Of the other variables the value may be quoted: `example.com is no origin; write https://example.com`."""


@given(_ENVIRONMENTS)
def test_any_environment_is_accepted_or_explained_without_its_secrets(given_: dict[str, str]) -> None:
    variables: dict[str, Any] = NEEDED | given_
    try:
        settings = Settings.model_validate(variables)
    except ValidationError as error:
        problems = settings_problems(error)
        assert problems
        assert not any(MARK in problem for problem in problems if problem.startswith(SECRET_NAMES))
    else:
        assert settings.limits.wire()
        assert plans_of(settings).named
        assert settings.model_url_for_letta.endswith("/v1")
        assert settings.own_url is None or not settings.own_url.endswith("/")
        secrets = [value for name, value in given_.items() if name in SECRETS]
        assert not any(MARK in secret and secret in repr(settings) for secret in secrets)
