"""A cancelled run closes its model's stream at once, so that tokens after the cancellation are not charged.

Letta raises the cancellation in the outermost of a chain of generators. The innermost, which holds the connection to
the model, stays suspended until Python's garbage collector finds it, mostly after the model's last token. Here a
separate task reads the innermost generator and is cancelled with the run: that ends any wait (for a connection, the
first chunk, the next one) and closes the connection, for every provider.

Letta checks for a cancellation only when the model sends a chunk. Between chunks, this module polls the database.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from letta_patches.known import require

SILENCE_SECONDS: Final = 1.0
"""Without a chunk for so long, the database is polled for a cancellation of the run, at this interval."""
_WAKE_SECONDS: Final = 0.6
"""Longer than the half second between two checks of a run by Letta, which happen when a chunk arrives."""
_WAKE_TIMES: Final = 5
_KNOWN: Final = {
    "LettaLLMStreamAdapter.invoke_llm": "40be2d053afdfcc6",
    "SimpleLLMStreamAdapter.invoke_llm": "3a3538d80c375260",
    "get_cancellation_event_for_run": "22efb34212d73d96",
    "cancellation_aware_stream_wrapper": "4b4838c73e0463f9",
    "RunManager.get_run_by_id": "3776c41abb4c49da",
}

Chunks = AsyncGenerator[Any, None]
IsCancelled = Callable[[], Awaitable[bool]]


def apply() -> None:
    """Wrap both streaming adapters. Raises UnknownCodeError."""
    from letta.adapters.letta_llm_stream_adapter import LettaLLMStreamAdapter
    from letta.adapters.simple_llm_stream_adapter import SimpleLLMStreamAdapter
    from letta.server.rest_api.streaming_response import (
        cancellation_aware_stream_wrapper,
        get_cancellation_event_for_run,
    )
    from letta.services.run_manager import RunManager

    adapters = (LettaLLMStreamAdapter, SimpleLLMStreamAdapter)
    met = [adapter.invoke_llm for adapter in adapters]
    met += [cancellation_aware_stream_wrapper, get_cancellation_event_for_run, RunManager.get_run_by_id]
    require({function: _KNOWN[function.__qualname__] for function in met})
    for adapter in adapters:
        adapter.invoke_llm = _stoppable(adapter.invoke_llm)


def _stoppable(invoke_llm: Callable[..., Chunks]) -> Callable[..., Chunks]:
    from letta.schemas.enums import RunStatus
    from letta.schemas.letta_message import LettaPing
    from letta.server.rest_api import streaming_response as letta
    from letta.services.run_manager import RunManager

    @functools.wraps(invoke_llm)
    async def stoppable(adapter: Any, *args: Any, **kwargs: Any) -> Chunks:
        chunks, run_id, actor = invoke_llm(adapter, *args, **kwargs), adapter.run_id, kwargs.get("actor")
        cancelled = letta.get_cancellation_event_for_run(run_id) if run_id else asyncio.Event()

        async def is_cancelled() -> bool:
            if not run_id or actor is None:
                return False
            run = await RunManager().get_run_by_id(run_id=run_id, actor=actor)
            return bool(run.status == RunStatus.cancelled)

        async with contextlib.aclosing(StoppableCall(chunks, cancelled, is_cancelled).chunks()) as passed:
            async for chunk in passed:
                yield chunk
        if not cancelled.is_set():
            return
        await adapter.aclose()  # closes a WebSocket to the model, if there is one
        for _ in range(_WAKE_TIMES):  # at one of these Letta ends the client's stream and stops this generator
            ping = f"ping-{uuid4()}"
            yield LettaPing(id=ping, otid=ping, date=datetime.now(UTC), run_id=run_id)
            await asyncio.sleep(_WAKE_SECONDS)
        raise letta.RunCancelledException(run_id)

    return stoppable


class StoppableCall:
    """One call of the model, read by a separate task until it ends or the run is cancelled.

    A chunk is read only after the previous one was consumed, as Letta itself does."""

    def __init__(self, source: Chunks, cancelled: asyncio.Event, is_cancelled: IsCancelled) -> None:
        self._source = source
        self._cancelled = cancelled
        self._is_cancelled = is_cancelled
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._consumed = asyncio.Event()
        self._chunk_count = 0

    async def chunks(self) -> Chunks:
        """The model's chunks. Ends without an error when the run is cancelled, else as `source` does."""
        reader = asyncio.create_task(self._read())
        watcher = asyncio.create_task(self._watch(reader))
        try:
            while (chunk := await self._queue.get()) is not self:
                yield chunk
                self._consumed.set()
            await asyncio.wait({reader})
            if not self._cancelled.is_set():
                reader.result()
        finally:
            reader.cancel()
            watcher.cancel()
            await asyncio.gather(reader, watcher, return_exceptions=True)

    async def _read(self) -> None:
        try:
            if self._cancelled.is_set():
                return
            async with contextlib.aclosing(self._source) as source:
                async for chunk in source:
                    if self._cancelled.is_set():
                        break  # a provider's client suppressed the cancellation and continued
                    self._chunk_count += 1
                    self._queue.put_nowait(chunk)
                    await self._consumed.wait()
                    self._consumed.clear()
        finally:
            self._queue.put_nowait(self)  # the end

    async def _watch(self, reader: "asyncio.Task[None]") -> None:
        """Cancel the reader with the run, also while no consumer waits for a chunk."""
        counted = 0
        while not self._cancelled.is_set():
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._cancelled.wait()
            except TimeoutError:
                if counted == self._chunk_count and await self._was_cancelled():
                    self._cancelled.set()
                counted = self._chunk_count
        reader.cancel()

    async def _was_cancelled(self) -> bool:
        try:
            return await self._is_cancelled()
        except Exception:  # such as an unavailable database: polled again
            return False
