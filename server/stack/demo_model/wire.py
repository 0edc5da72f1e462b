"""The interface of a model: the used part of OpenAI's chat completion request, and the pieces of a reply. Does not
import the HTTP API.
"""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field


class FunctionCall(BaseModel):
    """The name and the JSON text of the arguments of one tool call."""

    name: str = ""
    arguments: str = ""

    @property
    def decoded_arguments(self) -> dict[str, Any]:
        """The arguments as a JSON object; empty if they are not one."""
        try:
            decoded = json.loads(self.arguments)
        except ValueError:
            return {}
        return decoded if isinstance(decoded, dict) else {}


class MessageToolCall(BaseModel):
    """A tool call of an earlier assistant message."""

    id: str = ""
    function: FunctionCall = FunctionCall()


class Message(BaseModel):
    """One message of the prompt; content may be a string or OpenAI's list of content parts."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text of the message, its parts joined by a space."""
        if isinstance(self.content, list):
            return " ".join(str(part["text"]) for part in self.content if part.get("text"))
        return self.content or ""


class ToolFunction(BaseModel):
    """The declaration of a tool."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class Tool(BaseModel):
    """One entry of the request's `tools`."""

    function: ToolFunction


class StreamOptions(BaseModel):
    """Whether the last chunk of a stream reports usage."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A chat completion request. Other fields are accepted and ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[Message] = Field(min_length=1)
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    user: str | None = None

    @property
    def token_limit(self) -> int | None:
        """The maximal number of tokens of the reply. OpenAI has two names for this field."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def system_text(self) -> str:
        """All system and developer messages as one text."""
        return "\n".join(message.text for message in self.messages if message.role in {"system", "developer"})

    @property
    def last_user_index(self) -> int | None:
        """The index of the message to answer: the last user message; None if there is none."""
        return next((i for i in reversed(range(len(self.messages))) if self.messages[i].role == "user"), None)

    @property
    def last_user_text(self) -> str:
        """The text of the message to answer."""
        index = self.last_user_index
        return "" if index is None else self.messages[index].text

    @property
    def earlier_user_texts(self) -> list[str]:
        """The user's texts before the message to answer, oldest first."""
        return [message.text for message in self.messages[: self.last_user_index or 0] if message.role == "user"]

    @property
    def tool_results(self) -> Sequence[str]:
        """Results of tools called since the message to answer, in order."""
        start = self.last_user_index
        later = self.messages if start is None else self.messages[start + 1 :]
        return [message.text for message in later if message.role == "tool"]

    def offers(self, tool_name: str) -> bool:
        """Whether the model may call this tool now."""
        if self.tool_choice == "none":
            return False
        return any(tool.function.name == tool_name for tool in self.tools or [])


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the visible reply, usually one word with the space before it."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of the reasoning shown apart from the reply (`reasoning_content`)."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the offered tools."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def arguments_json(self) -> str:
        """The arguments as JSON text."""
        return json.dumps(self.arguments, ensure_ascii=False)


Piece = Text | Reasoning | ToolCall


class Model(Protocol):
    """A model that replies to chat requests in pieces."""

    def reply(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        """The pieces of the reply in order. Raises ApiError before the first piece to refuse the request."""
        ...


class ApiError(Exception):
    """An error that is sent as an OpenAI error body with this HTTP status."""

    def __init__(
        self, status: int, message: str, error_type: str = "invalid_request_error", code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.error_type = error_type
        self.code = code
