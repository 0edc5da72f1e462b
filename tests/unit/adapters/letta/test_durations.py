"""Parsing how long to wait from the text of a model's rate limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.adapters.letta.durations import parse_wait

LONGEST_SECONDS = 86_400


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 640ms. Visit https://platform.openai.com/account/rate-limits", 1),
        ("Please try again in 6m0s.", 360),
        ("Please try again in 20s.", 20),
        ("Please try again in 1.242s.", 2),
        ("Please try again in 1h2m3.5s.", 3724),
        ("Please try again in 7m12s", 432),
        ("Please try again in 1m", 60),
        ("Please try again in 1000ms.", 1),
        ("Please try again in 1001ms.", 2),
        ("Please try again in 0s.", 1),
        ("Please try again in 1d2h", LONGEST_SECONDS),
        ("try again in 20 seconds", 20),
        ("Try again in 2 minutes.", 120),
        ("try again in about 2 minutes and 5 seconds", 125),
        ("Please retry after 17 seconds", 17),
        ("Please retry in 41.384126s.", 42),
        ("Retry after 1 minute, 30 seconds", 90),
        ("Rate limited. Retry after 9", 9),
        ("'retry-after': '3'", 3),
        ('"retry_after": 12.5', 13),
        ("'retry-after-ms': '640'", 1),
        ("'retry_after_ms': 2500, 'more'", 3),
        ("Retry-After: 30, then go on", 30),
        ("Please try again in 3 hours.", 10_800),
        ("Please try again in 100000s.", LONGEST_SECONDS),
        ("Please try again in 99h.", LONGEST_SECONDS),
        ("retry after a while; try again in 5s", 5),
    ],
)
def test_a_wait_is_parsed_with_its_unit_rounded_up_and_bounded(words: str, seconds: int) -> None:
    assert parse_wait(words) == seconds


@pytest.mark.parametrize(
    "words",
    [
        "Rate limited",
        "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT",
        "Retry after 2026-11-26 07:32:27 UTC",
        "retry after 2026-11-26T07:32:27Z",
        "Please try again after 26/11/2026",
        "Try again in 2 weeks",
        "Retry after 3 попытки",
        "Retry after 21 Oct 2026",
        "Try again in 07:32:27",
        "Retry after 12:30",
        "try again in a few seconds",
        "retrying 3 times in 5s",
        "Please try again in 5x",
    ],
)
def test_a_date_or_another_number_is_not_a_wait(words: str) -> None:
    assert parse_wait(words) is None


@given(st.text(alphabet="retry again in after0123456789.,:ms hd-'\n"))
def test_any_text_gives_a_wait_within_bounds_or_none(words: str) -> None:
    seconds = parse_wait(words)
    assert seconds is None or 1 <= seconds <= LONGEST_SECONDS
