"""Token counts for the usage report: a deterministic approximation, and a prompt cache for cached tokens. Pure
computation.

The rules for cached tokens (at least 1,024, in steps of 128, only an unchanged beginning) are those of OpenAI's prompt
caching, so that longer conversations have tokens at the lower price of cached ones.
"""

import json
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from server.stack.demo_model.wire import ChatRequest, Message

_TOKEN = re.compile(r"[A-Za-z]{1,5}|[^\W\dA-Za-z_]{1,3}|\d{1,3}|[^\w\s]|_")
_MESSAGE_OVERHEAD = 4
_CACHE_MINIMUM = 1024
_CACHE_STEP = 128
_CACHED_PROMPTS = 256


def count_tokens(text: str) -> int:
    """Approximate the count of a tokenizer: up to five Latin letters, three other letters or three digits per token."""
    return sum(1 for _ in _TOKEN.finditer(text))


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one completed request."""

    prompt: int
    cached: int
    completion: int
    reasoning: int

    def as_json(self) -> dict[str, Any]:
        """The `usage` object of a completion."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Tokens of a prompt, and how many of them are an unchanged beginning of the user's previous prompt."""

    total: int
    cached: int


class PromptCache:
    """Caches the last prompt of each recent user, and counts the unchanged beginning of the next one."""

    def __init__(self) -> None:
        self._prompts: OrderedDict[str, list[str]] = OrderedDict()

    def measure(self, request: ChatRequest) -> PromptTokens:
        """Count the prompt's tokens and cache the prompt as the user's last."""
        parts = _prompt_parts(request)
        previous = self._prompts.pop(request.user or "", [])
        self._prompts[request.user or ""] = parts
        if len(self._prompts) > _CACHED_PROMPTS:
            self._prompts.popitem(last=False)

        counts = [count_tokens(part) + _MESSAGE_OVERHEAD for part in parts]
        unchanged = 0
        for part, before, tokens in zip(parts, previous, counts, strict=False):
            if part != before:
                break
            unchanged += tokens
        cached = unchanged // _CACHE_STEP * _CACHE_STEP if unchanged >= _CACHE_MINIMUM else 0
        return PromptTokens(sum(counts), cached)


def _prompt_parts(request: ChatRequest) -> list[str]:
    tools = json.dumps([tool.model_dump(exclude_none=True) for tool in request.tools or []], ensure_ascii=False)
    return [tools, *(_rendered(message) for message in request.messages)]


def _rendered(message: Message) -> str:
    calls = (f"{call.function.name}{call.function.arguments}" for call in message.tool_calls or [])
    return " ".join((message.role, message.text, *calls))
