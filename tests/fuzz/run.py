"""One run: shares the inputs among the kinds, and begins anew after each chunk."""

import asyncio
import math
import time
from typing import Final

from tests.fuzz.frames import Streams
from tests.fuzz.rest import Rest
from tests.fuzz.sockets import Sockets
from tests.fuzz.target import FuzzedServer, Tally

CHUNK: Final = 5_000
"""Inputs between two fresh starts."""


def run(inputs: int, seed: int, chunk: int = CHUNK, *, seconds: float = math.inf) -> Tally:
    """Send about so many inputs to a server of its own; no new chunk begins after `seconds`. The same seed sends the
    same."""
    tally = Tally()
    end = time.monotonic() + seconds
    with FuzzedServer() as server:
        server.renew(tally)
        number = 0
        while tally.total < inputs and time.monotonic() < end:
            share = max(20, min(chunk, inputs - tally.total) // 20)
            target = server.renew(tally)
            rest = Rest(target, tally, seed + number)
            rest.run(6 * share)
            asyncio.run(Streams(target, tally, seed + number).run(4 * share))
            asyncio.run(Sockets(target, tally, seed + number).run(8 * share))
            rest.run_sequences(2 * share)
            rest.end()
            server.settle(target, tally)
            number += 1
        server.renew(tally)
    tally.conclude()
    return tally
