"""The HTTP API of a model: OpenAI's chat completions, embeddings and model list on aiohttp.

Encodes responses and counts tokens; the model generates the content."""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from server.stack.demo_model.embeddings import EmbeddingRequest, embed, encoded
from server.stack.demo_model.tokens import PromptCache, PromptTokens, Usage, count_tokens
from server.stack.demo_model.wire import ApiError, ChatRequest, Model, Piece, Reasoning, Text, ToolCall

MODELS = ("gpt-4", "text-embedding-3-small")
_BODY_LIMIT = 64 * 2**20
_ARGUMENT_CHUNK = 12

Body = TypeVar("Body", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def create_app(model: Model) -> web.Application:
    """An application that serves `model`. Any model name and any API key are accepted."""
    api = _Api(model)
    app = web.Application(client_max_size=_BODY_LIMIT, middlewares=[_errors_as_json])
    app.add_routes(
        [
            web.post("/v1/chat/completions", api.chat),
            web.post("/v1/embeddings", api.embeddings),
            web.get("/v1/models", api.models),
            web.get("/health", api.health),
        ]
    )
    return app


class _Api:
    def __init__(self, model: Model) -> None:
        self._model = model
        self._prompts = PromptCache()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request, ChatRequest)
        completion = _Completion(body, self._prompts.measure(body))
        async with aclosing(completion.limited(self._model.reply(body))) as pieces:
            # The first piece is awaited before the response begins, so that an error can still set the status.
            first = await anext(pieces, Text(""))
            if body.stream:
                return await _stream(request, completion, first, pieces)
            message = _message([first, *[piece async for piece in pieces]])
        choice = {"index": 0, "message": message, "finish_reason": completion.finish_reason, "logprobs": None}
        return web.json_response(
            {**completion.head("chat.completion"), "choices": [choice], "usage": completion.usage.as_json()}
        )

    async def embeddings(self, request: web.Request) -> web.Response:
        body = await _body(request, EmbeddingRequest)
        vectors = [encoded(embed(text, body.dimensions), body.encoding_format) for text in body.texts]
        tokens = sum(count_tokens(text) for text in body.texts)
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return web.json_response({"object": "list", "model": body.model, "data": data, "usage": usage})

    async def models(self, _request: web.Request) -> web.Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "demo"} for name in MODELS]
        return web.json_response({"object": "list", "data": data})

    async def health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})


@dataclass(slots=True)
class _Completion:
    """One completion: its id, and the tokens generated so far."""

    request: ChatRequest
    prompt: PromptTokens
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    finish_reason: str = "stop"
    _text_tokens: int = 0
    _reasoning_tokens: int = 0

    def head(self, kind: str) -> dict[str, Any]:
        """The fields that begin each object of this completion."""
        return {"id": self.id, "object": kind, "created": self.created, "model": self.request.model}

    @property
    def usage(self) -> Usage:
        """The tokens of the request and of the pieces so far."""
        return Usage(
            self.prompt.total, self.prompt.cached, self._text_tokens + self._reasoning_tokens, self._reasoning_tokens
        )

    async def limited(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
        """The pieces up to the request's token limit; counts their tokens."""
        limit = self.request.token_limit
        async with aclosing(pieces):
            async for piece in pieces:
                if limit is not None and self._text_tokens + self._reasoning_tokens >= limit:
                    self.finish_reason = "length"
                    return
                self._count(piece)
                yield piece

    def _count(self, piece: Piece) -> None:
        match piece:
            case Text(text=text):
                self._text_tokens += count_tokens(text)
            case Reasoning(text=text):
                self._reasoning_tokens += count_tokens(text)
            case ToolCall() as call:
                self._text_tokens += count_tokens(call.name) + count_tokens(call.arguments_json)
                self.finish_reason = "tool_calls"


async def _stream(
    request: web.Request, completion: _Completion, first: Piece, rest: AsyncGenerator[Piece, None]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)

    async def send(choices: list[dict[str, Any]], **more: Any) -> None:
        chunk = {**completion.head("chat.completion.chunk"), "choices": choices, **more}
        await response.write(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode())

    async def send_delta(delta: dict[str, Any], finish_reason: str | None = None) -> None:
        await send([{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    await send_delta({"role": "assistant", "content": None if isinstance(first, ToolCall) else ""})
    calls = 0
    for delta in _deltas(first, calls):
        await send_delta(delta)
    calls += isinstance(first, ToolCall)
    async for piece in rest:
        for delta in _deltas(piece, calls):
            await send_delta(delta)
        calls += isinstance(piece, ToolCall)
    await send_delta({}, completion.finish_reason)
    if completion.request.stream_options and completion.request.stream_options.include_usage:
        await send([], usage=completion.usage.as_json())
    await response.write(b"data: [DONE]\n\n")
    return response


def _deltas(piece: Piece, call_index: int) -> list[dict[str, Any]]:
    """The deltas of a streamed piece: a tool call's arguments are split into parts, as OpenAI does."""
    match piece:
        case Text(text=text):
            return [{"content": text}]
        case Reasoning(text=text):
            return [{"reasoning_content": text}]
        case ToolCall() as call:
            opening = {**_tool_call(call, ""), "index": call_index}
            text = call.arguments_json
            parts = [text[at : at + _ARGUMENT_CHUNK] for at in range(0, len(text), _ARGUMENT_CHUNK)]
            tail = [{"index": call_index, "function": {"arguments": part}} for part in parts]
            return [{"tool_calls": [delta]} for delta in (opening, *tail)]


def _message(pieces: list[Piece]) -> dict[str, Any]:
    calls = [_tool_call(piece, piece.arguments_json) for piece in pieces if isinstance(piece, ToolCall)]
    text = "".join(piece.text for piece in pieces if isinstance(piece, Text))
    reasoning = "".join(piece.text for piece in pieces if isinstance(piece, Reasoning))
    message: dict[str, Any] = {"role": "assistant", "content": None if calls and not text else text}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_call(call: ToolCall, arguments: str) -> dict[str, Any]:
    identity = f"call_{uuid.uuid4().hex[:24]}"
    return {"id": identity, "type": "function", "function": {"name": call.name, "arguments": arguments}}


async def _body(request: web.Request, shape: type[Body]) -> Body:
    try:
        return shape.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ApiError(400, f"{where}: {first['msg']}" if where else first["msg"]) from error


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _error(error.status, error.message, error.error_type, error.code)
    except web.HTTPException as error:
        return _error(error.status, error.reason, "invalid_request_error")


def _error(status: int, message: str, error_type: str, code: str | None = None) -> web.Response:
    body = {"error": {"message": message, "type": error_type, "param": None, "code": code or str(status)}}
    return web.json_response(body, status=status)
