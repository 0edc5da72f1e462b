"""The demo model: decides on a reply and sends it word by word, as a language model does."""

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from server.stack.demo_model.replies import decide
from server.stack.demo_model.wire import ChatRequest, Piece, Text, ToolCall

_WORD = re.compile(r"\s*\S+")


def words(text: str) -> list[str]:
    """Split the text before each space. The pieces joined are the text, without trailing space."""
    return _WORD.findall(text)


@dataclass(frozen=True, slots=True)
class DemoModel:
    """Sends its replies with a pause of `word_delay` seconds before each word."""

    word_delay: float = 0.025

    async def reply(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        """The reply to a request, piece by piece."""
        match decide(request):
            case ToolCall() as call:
                yield call
            case Text(text=text):
                for word in words(text):
                    await asyncio.sleep(self.word_delay)
                    yield Text(word)
