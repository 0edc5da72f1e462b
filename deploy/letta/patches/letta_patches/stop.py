"""A cancelled run closes its model's stream at once, so that nobody pays for words that nobody reads.

Letta throws the cancellation into the outermost of a chain of generators. The innermost, which holds the connection to
the model, stays suspended until Python's garbage collector finds it, mostly after the model's last word. Here the
innermost is read by a task of its own, which is cancelled with the run: whatever that task waits for (a connection, the
first word, the next one) ends then and closes what it had opened, whichever provider's it is.

Letta notices that a run is cancelled when the model says something. While it says nothing, the database is asked here.
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
"""After so long without a word of the model, it is asked whether the run is cancelled; and again after as long."""
_WAKE_SECONDS: Final = 0.6
"""Letta looks at a run when a chunk comes, but no more than twice a second."""
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
    """Wrap both adapters that stream. Raises UnknownCodeError."""
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

        async with contextlib.aclosing(StoppableCall(chunks, cancelled, is_cancelled).chunks()) as said:
            async for chunk in said:
                yield chunk
        if not cancelled.is_set():
            return
        await adapter.aclose()  # a WebSocket to the model, where there is one
        for _ in range(_WAKE_TIMES):  # Letta ends the client's stream at one of these, and does not come back
            ping = f"ping-{uuid4()}"
            yield LettaPing(id=ping, otid=ping, date=datetime.now(UTC), run_id=run_id)
            await asyncio.sleep(_WAKE_SECONDS)
        raise letta.RunCancelledException(run_id)

    return stoppable


class StoppableCall:
    """One call of the model, read by a task of its own until it ends or the run is cancelled.

    A chunk is read when the one before was taken: not a word further than Letta itself would read."""

    def __init__(self, source: Chunks, cancelled: asyncio.Event, is_cancelled: IsCancelled) -> None:
        self._source = source
        self._cancelled = cancelled
        self._is_cancelled = is_cancelled
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._heard = 0

    async def chunks(self) -> Chunks:
        """What the model says. Ends without an error once the run is cancelled, else as `source` does."""
        reader = asyncio.create_task(self._read())
        watcher = asyncio.create_task(self._watch(reader))
        try:
            while (chunk := await self._said.get()) is not self:
                yield chunk
                self._taken.set()
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
                        break  # a provider's interface took the cancellation for its own and went on
                    self._heard += 1
                    self._said.put_nowait(chunk)
                    await self._taken.wait()
                    self._taken.clear()
        finally:
            self._said.put_nowait(self)  # the end

    async def _watch(self, reader: "asyncio.Task[None]") -> None:
        """Cancel the reader with the run, though nobody may wait for a chunk any more."""
        heard = 0
        while not self._cancelled.is_set():
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self._cancelled.wait()
            except TimeoutError:
                if heard == self._heard and await self._was_cancelled():
                    self._cancelled.set()
                heard = self._heard
        reader.cancel()

    async def _was_cancelled(self) -> bool:
        try:
            return await self._is_cancelled()
        except Exception:  # the database is away, say: it is asked again
            return False
