"""The parts of a reply that are not its text: the model's reasoning and its tool calls.

They come as events while a turn runs, and as `steps`, which are such events without numbers, with the history."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from ai_chat_client.state import ChatMessage, ToolCall


def with_step(reply: ChatMessage, step: Mapping[str, Any]) -> ChatMessage:
    """The reply after `reasoning.delta`, `tool.called` or `tool.returned`."""
    match step["type"]:
        case "reasoning.delta":
            return replace(reply, reasoning=reply.reasoning + step["text"])
        case "tool.called":
            call = ToolCall(step["call_id"], step["name"], step["arguments"], step["truncated"], "running")
            return replace(reply, tools=(*(tool for tool in reply.tools if tool.id != call.id), call))
        case "tool.returned":
            tools = (
                replace(tool, status=step["status"]) if tool.id == step["call_id"] else tool for tool in reply.tools
            )
            return replace(reply, tools=tuple(tools))
        case _:
            return reply


def with_steps(reply: ChatMessage, steps: Iterable[Mapping[str, Any]] | None) -> ChatMessage:
    """The reply with these steps instead of its own; None: they are not known."""
    if steps is None:
        return reply
    return reduce(with_step, steps, replace(reply, reasoning="", tools=()))
