"""Which address a request is taken to come from, and when an operator is told that this may be wrong."""

from dataclasses import dataclass

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from structlog.testing import capture_logs

from server.config.settings import Settings, header_in_use
from server.http.client_address import WATCHED_REQUESTS, ClientAddresses
from server.ip_addresses import network_of, parse_address
from tests.unit.config.test_settings import NEEDED, problems

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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1 ", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:1", "192.0.2.1"),
        ("192.0.2.1:", None),
        ("192.0.2.1:http", None),
        ("192.0.2.1:²", None),
        ("[2001:db8::1", None),
        ("[2001:db8::1]443", None),
        ("[2001:db8::1]:", None),
        ("192.0.2.256", None),
        ("client.example.com", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_an_address_is_read_with_its_port_brackets_and_zone_or_not_at_all(text: str, expected: str | None) -> None:
    assert parse_address(text) == expected


def test_what_counts_as_one_client_is_an_ipv4_address_or_a_network_of_ipv6() -> None:
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1")
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")


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


def test_railways_header_is_believed_on_railway_alone_and_another_may_be_named_there() -> None:
    assert header_in_use(None, {}) is None
    assert header_in_use(None, {"RAILWAY_ENVIRONMENT_ID": "x"}) == "X-Real-IP"
    assert header_in_use("CF-Connecting-IP", {"RAILWAY_PROJECT_ID": "x"}) == "CF-Connecting-IP"
    assert header_in_use(None, {"MY_RAILWAY_TOKEN": "x"}) is None


def test_the_settings_know_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.model_validate(NEEDED).address_header is None
    assert Settings.model_validate(NEEDED | {"client_address_header": "X-Client-IP"}).address_header == "X-Client-IP"
    monkeypatch.setenv("RAILWAY_SERVICE_ID", "x")
    assert Settings.model_validate(NEEDED).address_header == "X-Real-IP"


@pytest.mark.parametrize("name", ["X Real IP", "X-Real-IP:", "Ü", "X-Forwarded-For", "forwarded", "-"])
def test_a_header_that_cannot_be_one_address_is_refused_with_the_settings_name(name: str) -> None:
    (problem,) = problems(client_address_header=name)
    assert problem.startswith("CLIENT_ADDRESS_HEADER")


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
