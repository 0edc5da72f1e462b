"""Pauses before the next connection."""

import pytest

from ai_chat_client.errors import ChatError
from ai_chat_client.link import LinkEnd
from ai_chat_client.policy import pause_before


def pause(code: int, failures: int = 1, random: float = 0.5, error: ChatError | None = None) -> float | None:
    return pause_before(LinkEnd(code, error), failures, random)


def test_codes_from_4500_to_4599_forbid_a_reconnect() -> None:
    assert [pause(code) for code in (4500, 4501, 4503, 4599)] == [None] * 4
    assert None not in [pause(code) for code in (1000, 1001, 1006, 1009, 1012, 1013, 4000, 4001, 4002, 4003, 4004)]


def test_an_unknown_cursor_is_dropped_although_its_close_code_forbids_a_reconnect() -> None:
    assert pause(4501, error=ChatError("invalid_cursor", "")) is not None


def test_a_fresh_token_and_another_instance_need_no_pause_unless_they_fail_again() -> None:
    assert (pause(4001), pause(4002)) == (0, 0)
    assert pause(4001, 2)


def test_the_pause_grows_to_half_a_minute_and_is_never_below_half_of_its_step() -> None:
    assert [pause(1006, n, 1) for n in (1, 2, 3, 4, 5, 6, 7, 5000)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert pause(1006, 3, 0) == 1


def test_the_servers_retry_after_is_respected() -> None:
    seconds = pause(1013, 1, 0, ChatError("overloaded", "", retryable=True, retry_after=7))
    assert seconds is not None
    assert seconds >= 7


@pytest.mark.parametrize("code", [1001, 1012])
def test_clients_of_a_server_that_restarts_come_back_within_a_second_but_not_at_once(code: int) -> None:
    assert [pause(code, random=random) for random in (0.1, 0.9)] == [0.1, 0.9]
