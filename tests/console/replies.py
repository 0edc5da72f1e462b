"""Replies of the scripted model that stop where a test wants them to."""

import uuid

import aiohttp

from tests.stack.running_stack import RunningStack

WHOLE = "w0 w1 w2 w3 w4"


class HeldReply:
    """`text` is a message whose reply stops after "w0 w1" until it `goes_on`; then it is `WHOLE`."""

    def __init__(self, stack: RunningStack, http: aiohttp.ClientSession) -> None:
        self._gate = f"console-{uuid.uuid4().hex[:8]}"
        self.text = f"GATE {self._gate} 2 3"
        self._stack, self._http = stack, http

    async def goes_on(self) -> None:
        await self._stack.open_gate(self._http, self._gate)
