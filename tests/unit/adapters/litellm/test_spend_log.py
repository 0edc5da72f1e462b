"""Reading the spend log: every call of the keys is found exactly once, on any page, or the read fails."""

from collections.abc import MutableMapping
from datetime import timedelta, timezone
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.adapters.litellm import spend_log
from server.adapters.litellm.billing import LiteLLMBilling
from server.ports import SpendLog
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.adapters.litellm.scripted import ScriptedLiteLLM
from tests.unit.adapters.litellm.spend import KEY, NOON, OTHER_KEY, Pages, row

V2 = "/spend/logs/v2"
HOUR = timedelta(hours=1)
UNKNOWN_PATH = (404, {"detail": "Not Found"})


async def read(billing: LiteLLMBilling, *keys: str, before: timedelta = HOUR, after: timedelta = HOUR) -> SpendLog:
    return await billing.spend(keys or (KEY,), NOON - before, NOON + after)


def ids(found: SpendLog) -> list[str]:
    return [call.request_id for call in found.calls]


async def test_calls_are_returned_oldest_first(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.computed[V2] = Pages([row("second", 5), row("first", -5), row("third", 5.5)])
    assert ids(await read(billing)) == ["first", "second", "third"]


async def test_whole_seconds_are_requested_and_the_exact_period_is_returned(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    rows = [row("too early", -0.5), row("begins", -0.25), row("ends", 0.25), row("too late", 0.5)]
    service.computed[V2] = Pages(rows)
    quarter = timedelta(milliseconds=250)
    assert ids(await read(billing, before=quarter, after=quarter)) == ["begins", "ends"]
    (asked,) = service.asked
    assert (asked.query["start_date"], asked.query["end_date"]) == ("2026-11-26 11:59:59", "2026-11-26 12:00:01")


async def test_times_of_other_zones_are_converted(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.computed[V2] = Pages([row("one")])
    east = timezone(timedelta(hours=9))
    found = await billing.spend([KEY], (NOON - HOUR).astimezone(east), (NOON + HOUR).astimezone(east))
    assert ids(found) == ["one"]


async def test_each_key_is_requested_once_and_rows_of_other_keys_are_dropped(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    stranger = row("not ours", 3, api_key="ef" * 32, spend="unreadable")
    answers = {KEY: [row("one", 2), stranger], OTHER_KEY: [row("two", 1, api_key=OTHER_KEY)]}
    service.computed[V2] = lambda query: (200, {"data": answers[query["api_key"]]})
    assert ids(await read(billing, KEY, OTHER_KEY, KEY)) == ["two", "one"]
    assert len(service.asked) == 2


async def test_an_empty_period_or_no_key_causes_no_request(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    assert (await billing.spend([], NOON - HOUR, NOON)).calls == ()
    assert (await read(billing, before=-HOUR, after=timedelta())).calls == ()
    assert not service.asked


@pytest.mark.parametrize("key", ["sk-a-value-of-our-own", "ab" * 31, "AB" * 32, "ab" * 32 + "\n", ""])
async def test_the_value_of_a_key_is_refused_before_it_reaches_a_url(
    service: ScriptedLiteLLM, billing: LiteLLMBilling, key: str
) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        await read(billing, KEY, key)
    assert not service.asked


@pytest.mark.parametrize("apart", [0.0, 0.004, 0.7, 60.0])
async def test_every_page_is_read(service: ScriptedLiteLLM, billing: LiteLLMBilling, apart: float) -> None:
    rows = [row(f"{number:04}", number * apart) for number in range(430)]
    service.computed[V2] = Pages(rows)
    found = await billing.spend([KEY], NOON - HOUR, NOON + 24 * HOUR)
    assert ids(found) == [f"{number:04}" for number in range(430)]
    assert len(service.asked) < 15


async def test_a_row_written_between_two_pages_hides_no_other(
    service: ScriptedLiteLLM, billing: LiteLLMBilling
) -> None:
    log = Pages([row(f"{number:04}", number) for number in range(250)])

    def growing(query: dict[str, str]) -> tuple[int, object]:
        answer = log(query)
        log.rows += [row(f"late {len(log.rows)}", 0.5), row(f"new {len(log.rows)}", 400)]
        return answer

    service.computed[V2] = growing
    found = ids(await read(billing))
    assert set(found) >= {f"{number:04}" for number in range(250)}
    assert len(found) == len(set(found))


async def test_a_log_without_an_end_is_an_error(
    service: ScriptedLiteLLM, billing: LiteLLMBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spend_log, "MAX_PAGES", 5)
    service.says(V2, (200, {"data": [row(str(number)) for number in range(100)]}))
    with pytest.raises(PlatformError) as raised:
        await read(billing)
    assert raised.value.code is ErrorCode.LITELLM_UNAVAILABLE
    assert len(service.asked) < 10


async def test_a_refusal_is_an_error_and_not_an_empty_log(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    """A gateway in between may answer 404 for a short time."""
    service.says(V2, UNKNOWN_PATH)
    with pytest.raises(PlatformError) as raised:
        await read(billing)
    assert raised.value.code is ErrorCode.INTERNAL_ERROR
    service.computed[V2] = Pages([row("one")])
    assert ids(await read(billing)) == ["one"]


HOSTILE = [
    (200, "<html>it works</html>"),
    (200, []),
    (200, {}),
    (200, {"data": None}),
    (200, {"data": {"rows": []}}),
    (200, {"data": ["row"]}),
    (200, {"data": [row("one", spend="a lot")]}),
    (200, {"data": [row("", 1)]}),
    (503, {"data": []}),
]


@pytest.mark.parametrize("answer", HOSTILE)
async def test_an_unreadable_log_is_litellm_unavailable_and_not_an_empty_log(
    service: ScriptedLiteLLM, billing: LiteLLMBilling, answer: tuple[int, object]
) -> None:
    service.says(V2, answer)
    with pytest.raises(PlatformError) as raised:
        await read(billing)
    assert (raised.value.code, raised.value.retryable) == (ErrorCode.LITELLM_UNAVAILABLE, True)


async def test_only_the_field_of_an_unreadable_row_is_logged(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.says(V2, (200, {"data": [row("one", spend="a secret")]}))
    events: list[MutableMapping[str, Any]]
    with capture_logs() as events, pytest.raises(PlatformError):
        await read(billing)
    assert [event["field"] for event in events if event["event"] == "litellm.spend_unreadable"] == ["spend"]
    assert "a secret" not in str(events)


async def test_the_clock_is_returned_with_the_calls(service: ScriptedLiteLLM, billing: LiteLLMBilling) -> None:
    service.computed[V2] = Pages([])
    found = await read(billing)
    assert abs(found.clock) <= found.clock_error < 5
