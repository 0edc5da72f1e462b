"""Which origins are allowed."""

import pytest

from server.http.origins import Origins

OWN = "https://api.example.com/"


@pytest.mark.parametrize("origin", ["https://app.example.com", "HTTPS://APP.example.com", "https://api.example.com"])
def test_listed_origins_and_the_servers_own_are_allowed(origin: str) -> None:
    assert Origins(["https://app.example.com"], own_url=OWN, localhost_allowed=False).allows(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.com",
        "https://evil.com/https://app.example.com",
        "https://api.example.com@evil.com",
        "file://api.example.com",
        "http://localhost:3000",
        "http://api.example.com",
        "https://api.example.com:8443",
        "https://[",
    ],
)
def test_other_origins_are_refused(origin: str) -> None:
    assert not Origins(["https://app.example.com"], own_url=OWN, localhost_allowed=False).allows(origin)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:5173", "https://[::1]:1"])
def test_origins_of_this_machine_are_allowed_only_if_configured(origin: str) -> None:
    assert Origins([], localhost_allowed=True).allows(origin)
    assert not Origins([], localhost_allowed=False).allows(origin)


def test_a_domain_that_begins_with_localhost_is_refused() -> None:
    assert not Origins([], localhost_allowed=True).allows("http://localhost.evil.com")


def test_a_star_allows_every_origin() -> None:
    assert Origins(["*"], localhost_allowed=False).allows("https://anything.example")


@pytest.mark.parametrize(
    ("own", "origin"),
    [
        ("https://Chat.Example.com:443/api/", "https://chat.example.com"),
        ("http://192.0.2.1:8080", "http://192.0.2.1:8080"),
        ("http://[2001:db8::1]:80/", "http://[2001:db8::1]"),
    ],
)
def test_the_servers_own_origin_is_that_of_its_public_url(own: str, origin: str) -> None:
    assert Origins([], own_url=own, localhost_allowed=False).allows(origin)


def test_without_a_public_url_no_origin_is_the_servers_own() -> None:
    assert not Origins([], localhost_allowed=False).allows("https://api.example.com")
