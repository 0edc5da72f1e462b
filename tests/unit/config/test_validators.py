"""Validation of pasted values: accepted and refused ones, and errors that name the setting."""

import base64
import json
import string

import pytest

from server.config.settings import Settings
from server.config.validators import origins, registration, similar_names
from tests.unit.config.test_settings import NEEDED, problems, settings

DB = "postgresql://postgres.ref:p%40ss@aws-0-eu.pooler.supabase.com:5432/postgres"


def legacy(role: str) -> str:
    part = base64.urlsafe_b64encode(json.dumps({"role": role}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{part}.c2lnbmF0dXJl"


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {}\t", "\ufeff{}", "{}\u200b", "\u00a0{}\u2060\n"])
def test_white_space_around_a_value_is_stripped(around: str) -> None:
    values = NEEDED | {"supabase_db_url": DB, "redis_url": "redis://h:6379/0", "letta_api_token": "pw", "port": "8000"}
    for name, value in values.items():
        assert settings(**values | {name: around.format(value)}) == settings(**values), name


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields) - {"environment", "log_level"}))
def test_white_space_alone_counts_as_not_set(name: str) -> None:
    if Settings.model_fields[name].is_required():
        (problem,) = problems(**{name: " \n"})
        assert problem == f"{name.upper()}: is not set, and has no default"
    else:
        assert settings(**{name: " \n"}) == settings()


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
@pytest.mark.parametrize("value", ["a\nb", "a\x00b", "a\x1b[31mb", "a\u202eb", "a\udcffb", "'http://h'", '"8000"'])
def test_every_setting_is_one_line_without_quotes(name: str, value: str) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name.upper()}: ")
    assert "http" not in problem
    assert problem.isprintable()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("supabase_url", "ref.supabase.co", "is no address such as https://example.com"),
        ("supabase_url", "ftp://ref.supabase.co", "is no address such as https://example.com"),
        ("supabase_url", "https://user:pw-of-mine@ref.supabase.co", "must not hold a user name or password"),
        (
            "supabase_url",
            "https://ref.supabase.co/rest/v1/",
            "must be https://ref.supabase.co: /rest/v1 is added to it",
        ),
        ("litellm_base_url", "http://litellm:4000/v1", "must be http://litellm:4000: /v1 is added to it"),
        ("litellm_url_for_letta", "http://litellm/a/v1", "must be http://litellm/a: /v1 is added to it"),
        ("letta_base_url", "http://letta:8283/?a=b", "must end with the host or a path, without ? and #"),
        ("letta_base_url", "http://letta:8283#x", "must end with the host or a path, without ? and #"),
        ("letta_api_token", "a passwörd", "holds a space or a character that is not ASCII"),
        ("litellm_master_key", "sk-one sk-two", "holds a space or a character that is not ASCII"),
        (
            "supabase_anon_key",
            "sb_secret_x",
            "is the secret key, with which users' reads would pass row level",
        ),
        ("supabase_anon_key", legacy("service_role"), "is the service_role key, with which users' reads"),
        ("supabase_anon_key", "eyJ.nonsense.x", "is no API key of Supabase"),
        ("supabase_service_key", "sb_publishable_x", "is the publishable key; set it to the secret key"),
        ("supabase_service_key", legacy("anon"), "is the anon key; set it to the secret key"),
        ("supabase_service_key", "sb_secret_…", "not ASCII"),
        ("supabase_service_key", "a-database-password", "is no API key of Supabase"),
        ("agent_model", "gpt-4,gpt-5", "must be the name of one model"),
        ("host", "http://0.0.0.0", "pattern"),
        ("turn_timeout_seconds", "nan", "finite"),
        ("drain_seconds", "inf", "finite"),
        ("default_tokens_per_minute", "2147483648", "less than or equal to 2147483647"),
        ("default_budget_usd", "0.1234567890123456", "15 digits"),
        ("default_budget_usd", "$5", "decimal"),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence_that_names_its_setting(name: str, value: str, says: str) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name.upper()}: ")
    assert says in problem
    assert "pw-of-mine" not in problem


@pytest.mark.parametrize("key", ["sb_publishable_x", legacy("anon"), legacy("authenticated")])
def test_a_public_key_is_accepted_in_both_forms(key: str) -> None:
    assert settings(supabase_anon_key=key)
    assert settings(supabase_service_key=legacy("service_role"))


@pytest.mark.parametrize(
    "url",
    [
        DB,
        "postgres://postgres@db.ref.supabase.co/postgres",
        "postgresql://u:pa:ss!$&'()*+,;=~-._@[fd00::1]:5432/postgres?sslmode=require&options=-c%20a%3Db",
        "postgresql://u:p@10.0.0.1/",
        "postgresql://u@localhost",
    ],
)
def test_a_database_url_that_libpq_reads_is_accepted(url: str) -> None:
    assert settings(supabase_db_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "hush",
        "hush@host/db",
        "https://hush.supabase.co",
        "postgresql://hush",
        "host=h password=hush dbname=d",
        "postgresql://u:hush@more@host:5432/db",
        "postgresql://u:hush/more@host:5432/db",
        "postgresql://u:hush#more@host:5432/db",
        "postgresql://u:hush?more@host:5432/db",
        "postgresql://u:[hush]@host:5432/db",
        "postgresql://u:hush%zz@host:5432/db",
        "postgresql://u:hush%00@host:5432/db",
        "postgresql://u:hush%@host:5432/db",
        "postgresql://u:hush\\n@host:5432/db",
        "postgresql://u:p@host:hush/db",
        "postgresql://u:p@host:99999/hush",
        "postgresql://u:p@:5432/hush",
        "postgresql://u:p@host:5432/db?hush",
        "postgresql://u:p@host:5432/db?password=hush&hush",
        "postgresql://u:p@host:5432/db#hush",
        "postgresql://u:p@ho st/hush",
    ],
)
@pytest.mark.parametrize(("name", "scheme"), [("supabase_db_url", "postgresql"), ("redis_url", "redis")])
def test_a_url_with_a_password_is_refused_without_quoting_it(name: str, scheme: str, url: str) -> None:
    if (name, url) == ("redis_url", "postgresql://hush"):
        return  # a Redis URL needs no user, so this is its host
    (problem,) = problems(**{name: url.replace("postgresql", scheme)})
    assert problem.startswith(f"{name.upper()}: ")
    assert "hush" not in problem


@pytest.mark.parametrize(
    ("listed", "read"),
    [
        ("https://app.example.com", ("https://app.example.com",)),
        ("https://App.Example.com/, http://localhost:3000 ,", ("https://app.example.com", "http://localhost:3000")),
        ("https://app.example.com:443,http://a:80", ("https://app.example.com", "http://a")),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("capacitor://localhost,chrome-extension://abcdef", ("capacitor://localhost", "chrome-extension://abcdef")),
        ("*", ("*",)),
        ("null", ("null",)),
    ],
)
def test_origins_are_read_as_browsers_send_them(listed: str, read: tuple[str, ...]) -> None:
    assert origins(listed) == read


@pytest.mark.parametrize(
    ("listed", "example"),
    [
        ("app.example.com", "https://app.example.com"),
        ("https://app.example.com/login", "https://app.example.com"),
        ("http://user@app.example.com", "http://app.example.com"),
        ("app.example.com:8443/x", "https://app.example.com:8443"),
        ("https://*.example.com", "https://app.example.com"),
        ("https://", "https://app.example.com"),
        ("https://müller.example", "https://app.example.com"),
        ("https://a.example;https://b.example", "https://app.example.com"),
    ],
)
def test_an_invalid_origin_is_named_with_an_example(listed: str, example: str) -> None:
    (problem,) = problems(allowed_origins=f"https://good.example,{listed}")
    assert problem.endswith(f"{listed} is no origin as browsers send it; write {example}")


@pytest.mark.parametrize(
    "given",
    ["REDIS_UR", "REDIS_URLS", "REDIS_URK", "REDIS_RUL", "redis_ulr", "XREDIS_URL", "REDISURL", "EDIS_URL"],
)
def test_a_name_one_letter_away_is_found(given: str) -> None:
    assert similar_names([given, "PATH"], ["redis_url", "port"]) == [(given.upper(), "REDIS_URL")]


@pytest.mark.parametrize("given", ["REDIS_URL", "redis_url", "REDIS_HOST", "RDS_URL", "DATABASE_URL", "", "REDIS"])
def test_other_names_are_not_found(given: str) -> None:
    assert similar_names([given], ["redis_url", "port"]) == []


def test_no_two_settings_are_one_letter_apart() -> None:
    names = list(Settings.model_fields)
    for name in names:
        assert similar_names([name], [other for other in names if other != name]) == []
    assert set("".join(names)) <= set(string.ascii_lowercase + string.digits + "_")


@pytest.mark.parametrize(
    ("listed", "meaning"),
    [
        ("open", "open"),
        (" Closed ", "closed"),
        ("example.com", ("example.com",)),
        ("@Example.com, sub.example.org ,", ("example.com", "sub.example.org")),
    ],
)
def test_registration_is_open_closed_or_a_list_of_mail_domains(listed: str, meaning: object) -> None:
    assert registration(listed) == meaning


@pytest.mark.parametrize("listed", ["opne", "example", "open,example.com", "*.example.com", "a@example.com", "-.com"])
def test_what_is_no_mail_domain_is_refused_with_its_name(listed: str) -> None:
    with pytest.raises(ValueError, match="is no mail domain; write open, closed, or domains"):
        registration(listed)
