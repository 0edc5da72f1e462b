"""A model call inside Letta's process: read to its end, or closed when its run is cancelled, even without a reader."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import pytest
from letta_patches import stop
from letta_patches.stop import StoppableCall


class Model:
    """Yields the given words, blocks at a None, and records how it was closed."""

    def __init__(self, *words: str | None) -> None:
        self.words = words
        self.said: list[str] = []
        self.is_silent = asyncio.Event()
        self.left = asyncio.Event()
        self.stubborn = False

    async def speak(self) -> AsyncGenerator[str, None]:
        try:
            for word in self.words:
                try:
                    if word is None:
                        self.is_silent.set()
                        await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if not self.stubborn:
                        raise
                self.said.append(word or "swallowed")
                yield word or "swallowed"
        finally:
            self.left.set()


async def never() -> bool:
    return False


async def gone(model: Model) -> None:
    await asyncio.wait_for(model.left.wait(), 10)


async def test_a_run_that_is_not_cancelled_is_read_to_its_end() -> None:
    model = Model("a", "b", "c")
    call = StoppableCall(model.speak(), asyncio.Event(), never)
    assert [word async for word in call.chunks()] == ["a", "b", "c"]
    assert model.left.is_set()


async def test_the_model_is_read_no_faster_than_letta_reads() -> None:
    model = Model("a", "b", "c")
    async with aclosing(StoppableCall(model.speak(), asyncio.Event(), never).chunks()) as words:
        assert await anext(words) == "a"
        for _ in range(10):
            await asyncio.sleep(0)
        assert model.said == ["a"]
        assert await anext(words) == "b"


async def test_a_cancelled_run_closes_the_model_without_a_reader() -> None:
    model, cancelled = Model("a", "b"), asyncio.Event()
    words = StoppableCall(model.speak(), cancelled, never).chunks()
    assert await anext(words) == "a"
    cancelled.set()
    await gone(model)
    assert model.said == ["a"]
    assert [word async for word in words] == []


@pytest.mark.parametrize("said", [[], ["a"]])
async def test_a_cancelled_run_closes_a_silent_model_without_an_error(said: list[str]) -> None:
    model, cancelled = Model(*said, None, "never"), asyncio.Event()
    words = StoppableCall(model.speak(), cancelled, never).chunks()
    assert [await anext(words) for _ in said] == said
    rest = asyncio.ensure_future(anext(words, None))
    await model.is_silent.wait()
    cancelled.set()
    assert await asyncio.wait_for(rest, 10) is None
    assert model.left.is_set()


async def test_a_run_cancelled_before_its_model_call_makes_no_call() -> None:
    model, cancelled = Model("a"), asyncio.Event()
    cancelled.set()
    assert [word async for word in StoppableCall(model.speak(), cancelled, never).chunks()] == []
    assert model.said == []


async def test_a_provider_that_swallows_the_cancellation_is_closed_at_its_next_chunk() -> None:
    model, cancelled = Model("a", None, "b"), asyncio.Event()
    model.stubborn = True
    words = StoppableCall(model.speak(), cancelled, never).chunks()
    assert await anext(words) == "a"
    rest = asyncio.ensure_future(anext(words, None))
    await model.is_silent.wait()
    cancelled.set()
    assert await asyncio.wait_for(rest, 10) is None
    assert (model.said, model.left.is_set()) == (["a", "swallowed"], True)


async def test_the_run_is_polled_for_a_cancellation_while_the_model_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stop, "SILENCE_SECONDS", 0.001)
    answers: Iterator[bool | Exception] = iter([False, ConnectionError("the database is away"), False, True])

    async def is_cancelled() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    model, cancelled = Model("a", None), asyncio.Event()
    call = StoppableCall(model.speak(), cancelled, is_cancelled)
    assert await asyncio.wait_for(_all(call), 10) == ["a"]
    assert cancelled.is_set()
    assert model.left.is_set()


async def _all(call: StoppableCall) -> list[str]:
    return [word async for word in call.chunks()]


async def test_an_error_of_the_model_is_raised_unchanged() -> None:
    async def fails() -> AsyncGenerator[str, None]:
        yield "a"
        raise LookupError("no such model")

    words = StoppableCall(fails(), asyncio.Event(), never).chunks()
    assert await anext(words) == "a"
    with pytest.raises(LookupError, match="no such model"):
        await anext(words)


async def test_a_cancelled_reader_closes_the_model_and_stays_cancelled() -> None:
    model = Model("a", None)
    reading = asyncio.ensure_future(_all(StoppableCall(model.speak(), asyncio.Event(), never)))
    await model.is_silent.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert model.left.is_set()


async def test_a_reader_that_leaves_closes_the_model() -> None:
    model = Model("a", "b")
    words = StoppableCall(model.speak(), asyncio.Event(), never).chunks()
    assert await anext(words) == "a"
    await words.aclose()
    assert (model.said, model.left.is_set()) == (["a"], True)
