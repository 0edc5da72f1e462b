"""Which address a request is taken to come from, and when an operator is told that this may be wrong."""

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
def test_only_our_own_proxies_are_believed(lines: list[str], proxies: int, expected: str) -> None:
    assert ClientAddresses(None, proxies).of(forwarded(*lines)) == expected


def test_a_named_header_comes_before_forwarded_addresses() -> None:
    addresses = ClientAddresses("X-Real-IP", 1)
    sent = request(("X-Forwarded-For", "192.0.2.9, 152.233.9.1"), ("x-real-ip", "192.0.2.9"))
    assert addresses.of(sent) == "192.0.2.9"


@pytest.mark.parametrize("value", ["nonsense", "", "192.0.2.9:port"])
def test_a_named_header_without_an_address_leaves_the_connections(value: str) -> None:
    assert ClientAddresses("X-Real-IP").of(request(("X-Real-IP", value))) == PEER


def test_without_its_header_a_request_is_the_connections_whatever_else_it_claims() -> None:
    assert ClientAddresses("X-Real-IP", 1).of(forwarded("192.0.2.9")) == PEER


def test_of_several_values_the_last_is_the_proxys() -> None:
    sent = request(("X-Real-IP", "6.6.6.6"), ("X-Real-IP", "7.7.7.7, 192.0.2.9"))
    assert ClientAddresses("X-Real-IP").of(sent) == "192.0.2.9"


@pytest.mark.parametrize("name", ["X-Real-IP", "X-Forwarded-For", "CF-Connecting-IP", "True-Client-IP", "Forwarded"])
def test_without_a_proxy_a_clients_header_changes_nothing(name: str) -> None:
    assert ClientAddresses().of(request((name, "192.0.2.9"))) == PEER


def test_a_socket_for_both_kinds_of_addresses_shows_the_same_client_as_one_for_ipv4() -> None:
    assert ClientAddresses().of(request(remote="::ffff:192.0.2.1")) == "192.0.2.1"


def test_a_connection_without_an_address_has_a_name_of_its_own() -> None:
    assert ClientAddresses().of(request(remote=None)) == "unknown"


def test_an_operator_is_told_once_when_every_sign_in_comes_from_one_address() -> None:
    addresses = ClientAddresses()
    with capture_logs() as events:
        for _ in range(3 * WATCHED_REQUESTS):
            addresses.watch(PEER)
    assert [event["event"] for event in events] == ["client_address.always_the_same"]


def test_nothing_is_told_once_a_second_address_was_seen() -> None:
    addresses = ClientAddresses()
    with capture_logs() as events:
        addresses.watch("192.0.2.1")
        for _ in range(3 * WATCHED_REQUESTS):
            addresses.watch(PEER)
    assert events == []
