"""The tables of limits in docs/protocol.md equal the code."""

import re
from pathlib import Path

import pytest

from server.api import router
from server.auth.api_keys import MOST
from server.config.settings import Settings
from server.http.http_server import HEADER_BYTES, KEEPALIVE_SECONDS
from server.http.inputs import BODY_BYTES, BODY_SECONDS, QUERY_BYTES, SEARCH_BYTES, TEXT_BYTES
from server.http.middlewares import HEADERS_BYTES
from server.protocol.limits import Limits
from server.protocol.rates import RATES

LIMITS = Limits()
KIB, MIB = 1024, 1024 * 1024


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of docs/protocol.md, without its header."""
    text = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text("utf-8")
    (section,) = re.findall(rf"^#+ {heading}\n(.*?)^#", text, re.DOTALL | re.MULTILINE)
    (table, *_) = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def default(setting: str) -> object:
    return Settings.model_fields[setting.lower()].default


def test_the_table_of_rates_lists_every_rate_with_its_default() -> None:
    assert rows("Rates") == [
        [f"`{name}`", rule.per, str(default(rule.setting)), f"`{rule.setting}`", rule.counts]
        for name, rule in RATES.items()
    ]


def test_every_setting_of_a_rate_is_one_of_the_table() -> None:
    named = {name.upper() for name in Settings.model_fields if name.endswith("_per_minute")}
    assert named - {"DEFAULT_TOKENS_PER_MINUTE", "DEFAULT_REQUESTS_PER_MINUTE"} == {r.setting for r in RATES.values()}


def test_every_sign_in_endpoint_and_every_one_of_the_memory_has_its_rate() -> None:
    for route in router.ROUTES:
        is_costly = route.access == "public" and route.method == "POST"
        assert route.limited or not is_costly, route.path
        assert (route.rate == "memory_requests") == ("/agent/memory" in route.path), route.path


EXPECTED = {
    "message": f"{LIMITS.content_characters:,} characters",
    "frame a client sends": f"{LIMITS.frame_bytes // KIB} KiB; the first one, with the token,"
    f" {LIMITS.first_frame_bytes // KIB} KiB",
    "request body": f"{BODY_BYTES // KIB} KiB; {TEXT_BYTES // KIB} KiB for `chat/message` and `agent/memory/{{label}}`",
    "header of a request": f"{HEADER_BYTES // KIB} KiB; all together {HEADERS_BYTES // KIB} KiB, complete within"
    f" {BODY_SECONDS:g} s of its first byte",
    "idle connection between two requests": f"{KEEPALIVE_SECONDS:g} s",
    "connections of an instance": f"{default('MAX_CONNECTIONS'):,}, as many as `ulimit -n` allows; then the one idle"
    " longest is closed",
    "address with its query": f"{SEARCH_BYTES // KIB} KiB; the query {QUERY_BYTES // KIB} KiB, except"
    " `agent/memory`'s and `chat/history`'s, and below 33 parameters",
    "words of a search in the history": f"{LIMITS.search_characters} characters",
    "name": f"{LIMITS.name_characters} characters",
    "connections per user": f"{LIMITS.connections_per_user}, [then](#more-devices-than-slots) 4004 or 429",
    "sockets not signed in yet": f"{LIMITS.unauthenticated_sockets_per_address} from one address,"
    f" {LIMITS.unauthenticated_sockets:,} in all",
    "waiting turns per user": str(LIMITS.waiting_turns_per_user),
    "unsent turns per user and budget period": str(LIMITS.unsent_turns_per_period),
    "time of a turn": f"{LIMITS.turn_seconds:g} s",
    "API keys per user": str(MOST),
    "reasoning": f"{LIMITS.event_text_bytes // KIB} KiB an event, the rest in the next",
    "tool arguments": f"{LIMITS.event_text_bytes // KIB} KiB, then cut (`truncated`)",
    "stored steps of a reply": f"{LIMITS.steps_bytes // KIB} KiB, then cut (`truncated`)",
    "a connection that is behind": f"{LIMITS.slow_consumer_bytes // MIB} MiB, then 4000 `slow_consumer`",
}
"""Each other limit in the table, from the code."""


@pytest.mark.parametrize("name", EXPECTED)
def test_the_table_of_limits_has_the_codes_defaults(name: str) -> None:
    found = {row[0]: row[1] for row in rows("Limits")}
    assert found[name] == EXPECTED[name]


def test_the_table_of_limits_has_no_other_rows_and_only_settings_that_exist() -> None:
    table = rows("Limits")
    assert [row[0] for row in table] == list(EXPECTED)
    for row in table:
        for setting in re.findall(r"`([A-Z_]+)`", row[2]):
            assert setting.lower() in Settings.model_fields
