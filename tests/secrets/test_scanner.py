"""The scanner finds what it must: otherwise its silence would prove nothing."""

import base64
from urllib.parse import quote

import pytest

from tests.secrets.scanner import Leak, Scanner, Stored

SECRET = "pässword with+/= signs 1"


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("plain", SECRET),
        ("in a URL", quote(SECRET, safe="")),
        ("in JSON", SECRET.replace("/", "\\/")),
        *(("in base64", base64.b64encode(b"xyz"[:shift] + SECRET.encode() + b"tail").decode()) for shift in range(3)),
        ("in base64", base64.b64encode(SECRET.encode()).decode()),
        ("in hexadecimal", SECRET.encode().hex()),
    ],
)
def test_a_secret_is_found_however_it_is_written(form: str, text: str) -> None:
    scanner = Scanner()
    scanner.learn("password", SECRET)
    scanner.read("log", f'{{"event": "x{text}x"}}')
    assert Leak("log", "password", form) in scanner.leaks()


def test_a_text_that_was_read_before_the_secret_was_known_counts() -> None:
    scanner = Scanner()
    scanner.read("log", f"before {SECRET}")
    scanner.learn("token", SECRET)
    assert [leak.place for leak in scanner.leaks()] == ["log"]


def test_an_exception_allows_its_kind_at_its_place_alone_and_must_be_needed() -> None:
    needed, unneeded = Stored("token", "database *", "on purpose"), Stored("key", "database *", "on purpose")
    scanner = Scanner(stored=(needed, unneeded))
    scanner.learn("token", SECRET)
    for place in ("database auth", "log"):
        scanner.read(place, SECRET)
    assert [str(leak) for leak in scanner.leaks()] == ["log: token (plain)"]
    assert scanner.unused() == [unneeded]


def test_a_leak_does_not_show_the_secret() -> None:
    scanner = Scanner()
    scanner.learn("token", SECRET)
    scanner.read("log", f"signed in with {SECRET} today")
    (leak,) = scanner.leaks()
    assert (str(leak), scanner.around(leak)) == ("log: token (plain)", "signed in with <token> today")


def test_a_short_value_is_refused_since_it_would_be_found_by_accident() -> None:
    with pytest.raises(AssertionError):
        Scanner().learn("code", "123456")
