"""Which origins are allowed."""

import pytest

from server.http.origins import Origins

HOST = "api.example.com"


@pytest.mark.parametrize("origin", ["https://app.example.com", "HTTPS://APP.example.com", "https://api.example.com"])
def test_listed_origins_and_the_servers_own_are_allowed(origin: str) -> None:
    assert Origins(["https://app.example.com"], localhost_allowed=False).allows(origin, HOST)


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
        "https://[",
    ],
)
def test_other_origins_are_refused(origin: str) -> None:
    assert not Origins(["https://app.example.com"], localhost_allowed=False).allows(origin, HOST)


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:5173", "https://[::1]:1"])
def test_origins_of_this_machine_are_allowed_only_if_configured(origin: str) -> None:
    assert Origins([], localhost_allowed=True).allows(origin, HOST)
    assert not Origins([], localhost_allowed=False).allows(origin, HOST)


def test_a_domain_that_begins_with_localhost_is_refused() -> None:
    assert not Origins([], localhost_allowed=True).allows("http://localhost.evil.com", HOST)


def test_a_star_allows_every_origin() -> None:
    assert Origins(["*"], localhost_allowed=False).allows("https://anything.example", HOST)
