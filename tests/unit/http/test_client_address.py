"""The client's address of a request, and the warning that it may be a proxy's."""

from dataclasses import dataclass

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from structlog.testing import capture_logs

from server.http.client_address import WATCHED_REQUESTS, ClientAddresses

PEER = "10.0.0.1"


@dataclass(frozen=True)
class Request:
    headers: CIMultiDictProxy[str]
    remote: str | None = PEER


def request(*headers: tuple[str, str], remote: str | None = PEER) -> Request:
    return Request(CIMultiDictProxy(CIMultiDict(headers)), remote)


def forwarded(*lines: str) -> Request:
    return request(*(("X-Forwarded-For", line) for line in lines))


@pytest.mark.parametrize(
    ("lines", "proxies", "expected"),
    [
        ([], 0, PEER),
        (["192.0.2.9"], 0, PEER),
        ([], 1, PEER),
        (["192.0.2.9"], 1, "192.0.2.9"),
        (["6.6.6.6, 192.0.2.9"], 1, "192.0.2.9"),
        (["6.6.6.6, 192.0.2.9, 10.0.0.7"], 2, "192.0.2.9"),
        (["6.6.6.6", "192.0.2.9"], 1, "192.0.2.9"),
        (["192.0.2.9"], 3, "192.0.2.9"),
        (["nonsense"], 1, PEER),
        (["2001:db8::1"], 1, "2001:db8::1"),
        (["6.6.6.6, 192.0.2.9:51234"], 1, "192.0.2.9"),
        (['6.6.6.6, "[2001:db8::1]:51234"'], 1, "2001:db8::1"),
        (["6.6.6.6,"], 1, PEER),
    ],
)
def test_only_entries_of_trusted_proxies_are_used(lines: list[str], proxies: int, expected: str) -> None:
    assert ClientAddresses(None, proxies).of(forwarded(*lines)) == expected


def test_a_named_header_comes_before_forwarded_addresses() -> None:
    addresses = ClientAddresses("X-Real-IP", 1)
    sent = request(("X-Forwarded-For", "192.0.2.9, 152.233.9.1"), ("x-real-ip", "192.0.2.9"))
    assert addresses.of(sent) == "192.0.2.9"


@pytest.mark.parametrize("value", ["nonsense", "", "192.0.2.9:port"])
def test_a_named_header_without_an_address_falls_back_to_the_connection(value: str) -> None:
    assert ClientAddresses("X-Real-IP").of(request(("X-Real-IP", value))) == PEER


def test_without_the_named_header_x_forwarded_for_is_ignored() -> None:
    assert ClientAddresses("X-Real-IP", 1).of(forwarded("192.0.2.9")) == PEER


def test_the_last_of_several_values_is_used() -> None:
    sent = request(("X-Real-IP", "6.6.6.6"), ("X-Real-IP", "7.7.7.7, 192.0.2.9"))
    assert ClientAddresses("X-Real-IP").of(sent) == "192.0.2.9"


@pytest.mark.parametrize("name", ["X-Real-IP", "X-Forwarded-For", "CF-Connecting-IP", "True-Client-IP", "Forwarded"])
def test_without_a_proxy_headers_are_ignored(name: str) -> None:
    assert ClientAddresses().of(request((name, "192.0.2.9"))) == PEER


def test_an_ipv4_mapped_address_is_read_as_ipv4() -> None:
    assert ClientAddresses().of(request(remote="::ffff:192.0.2.1")) == "192.0.2.1"


def test_a_connection_without_an_address_is_unknown() -> None:
    assert ClientAddresses().of(request(remote=None)) == "unknown"


def test_one_warning_is_logged_if_every_sign_in_comes_from_one_address() -> None:
    addresses = ClientAddresses()
    with capture_logs() as events:
        for _ in range(3 * WATCHED_REQUESTS):
            addresses.watch(PEER)
    assert [event["event"] for event in events] == ["client_address.always_the_same"]


def test_no_warning_is_logged_after_a_second_address() -> None:
    addresses = ClientAddresses()
    with capture_logs() as events:
        addresses.watch("192.0.2.1")
        for _ in range(3 * WATCHED_REQUESTS):
            addresses.watch(PEER)
    assert events == []
