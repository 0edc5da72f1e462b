"""The agent's memory: blocks, and the passages of the archival memory."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Final, TypeVar

from aiohttp import web

from server.api import schemas
from server.api.models import MemoryQuery, PassageText, UpdateBlock
from server.http.app_keys import HUB, MEMORY, PROVISIONER
from server.http.inputs import SEARCH_BYTES, TEXT_BYTES
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.ports import AgentGoneError, AgentHandle, MemoryBlock, Passage, PassagePage, Principal
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Json, wire_time

T = TypeVar("T")

_PROVISIONING_TIMEOUT: Final = 5.0
"""The timeout of a request to the memory for an agent that is being provisioned."""
_LETTA_TIMEOUT: Final = 10.0
_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,50}", re.ASCII)
_PASSAGE_ID: Final = re.compile(r"passage-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Letta returns the first page for any other cursor."""


async def memory(request: web.Request, principal: Principal, query: MemoryQuery) -> web.Response:
    _check_cursor(query.before)
    agent_memory = request.app[MEMORY]
    # Alone: after an outage the breaker lets one call through; refused calls beside it would cancel it.
    agent, blocks = await with_agent(request, principal, agent_memory.blocks)
    async with _limit_time(), asyncio.TaskGroup() as calls:
        page = calls.create_task(agent_memory.passages(agent, query.query, query.limit, query.before))
        window = calls.create_task(agent_memory.context(agent))
    return json_response(
        {
            "blocks": [_block(block) for block in blocks],
            "archival": _archival(page.result()),
            "context": asdict(window.result()),
        }
    )


async def update_block(request: web.Request, principal: Principal, label: str, body: UpdateBlock) -> web.Response:
    """Rewrite a memory block. Refused while a turn runs: the agent may be writing the same block."""
    if not _LABEL.fullmatch(label):
        raise PlatformError(ErrorCode.NOT_FOUND)

    async def update(agent: AgentHandle) -> MemoryBlock:
        write = partial(request.app[MEMORY].update_block, agent, label, body.value)
        return await request.app[HUB].while_idle(principal.user_id, write)

    _, block = await with_agent(request, principal, update)
    return json_response(_block(block))


async def passages(request: web.Request, principal: Principal, query: MemoryQuery) -> web.Response:
    """Archival memory alone, newest first, or what contains the words of `query`."""
    _check_cursor(query.before)
    search = partial(request.app[MEMORY].passages, query=query.query, limit=query.limit, before=query.before)
    _, page = await with_agent(request, principal, search)
    return json_response(_archival(page))


async def add_passage(request: web.Request, principal: Principal, body: PassageText) -> web.Response:
    _, added = await with_agent(request, principal, partial(request.app[MEMORY].add_passage, text=body.text))
    return json_response(_passage(added), 201)


async def replace_passage(
    request: web.Request, principal: Principal, passage_id: str, body: PassageText
) -> web.Response:
    """Replace a passage by one with another text and the same time. Its id changes."""
    _check_id(passage_id)
    replace = partial(request.app[MEMORY].replace_passage, passage_id=passage_id, text=body.text)
    _, replaced = await with_agent(request, principal, replace)
    return json_response(_passage(replaced))


async def delete_passage(request: web.Request, principal: Principal, passage_id: str) -> web.Response:
    _check_id(passage_id)
    await with_agent(request, principal, partial(request.app[MEMORY].delete_passage, passage_id=passage_id))
    return web.Response(status=204)


def _check_cursor(before: str | None) -> None:
    if before is not None and not _PASSAGE_ID.fullmatch(before):
        raise PlatformError(ErrorCode.INVALID_CURSOR)


def _check_id(passage_id: str) -> None:
    if not _PASSAGE_ID.fullmatch(passage_id):
        raise PlatformError(ErrorCode.NOT_FOUND)


@asynccontextmanager
async def _limit_time() -> AsyncIterator[None]:
    """Limit the time of a call to Letta with its retries. Raises PlatformError(letta_unavailable)."""
    try:
        async with asyncio.timeout(_LETTA_TIMEOUT):
            yield
    except TimeoutError as cause:
        raise PlatformError(ErrorCode.LETTA_UNAVAILABLE, retry_after=_LETTA_TIMEOUT) from cause


async def with_agent(
    request: web.Request, principal: Principal, call: Callable[[AgentHandle], Awaitable[T]]
) -> tuple[AgentHandle, T]:
    """The user's agent and the result of `call` with it. An agent that Letta does not know is replaced first."""
    agents = request.app[PROVISIONER]
    agent = await agents.ready(principal.user_id, principal.email, timeout=_PROVISIONING_TIMEOUT)
    try:
        async with _limit_time():
            return agent, await call(agent)
    except AgentGoneError:
        agent = await agents.find_or_replace(principal.user_id, agent, timeout=_LETTA_TIMEOUT)
    async with _limit_time():
        return agent, await call(agent)


def _block(block: MemoryBlock) -> Json:
    return {
        "label": block.label,
        "value": block.value,
        "limit": block.limit,
        "description": block.description,
        "updated_at": wire_time(block.updated_at),
    }


def _passage(passage: Passage) -> Json:
    return {"id": passage.id, "text": passage.text, "created_at": wire_time(passage.created_at)}


def _archival(page: PassagePage) -> Json:
    return {
        "data": [_passage(passage) for passage in page.data],
        "has_more": page.has_more,
        "next_cursor": page.data[-1].id if page.has_more and page.data else None,
    }


MEMORY_ERRORS = (ErrorCode.AGENT_UNAVAILABLE, ErrorCode.LETTA_UNAVAILABLE)

ROUTES = (
    Route(
        "GET",
        "/api/v1/agent/memory",
        "read",
        memory,
        "agent",
        "The agent's memory",
        {200: Reply("Memory blocks, archival memory, and the use of the context window.", schemas.AgentMemory)},
        errors=(ErrorCode.INVALID_CURSOR, *MEMORY_ERRORS),
        rate="memory_requests",
        query_bytes=SEARCH_BYTES,
    ),
    Route(
        "PATCH",
        "/api/v1/agent/memory/{label}",
        "chat",
        update_block,
        "agent",
        "Rewrite a memory block",
        {200: Reply("The block.", schemas.Block)},
        errors=(ErrorCode.NOT_FOUND, ErrorCode.BUSY, ErrorCode.TOO_LARGE, *MEMORY_ERRORS),
        rate="memory_requests",
        body_bytes=TEXT_BYTES,
    ),
    Route(
        "GET",
        "/api/v1/agent/memory/archival",
        "read",
        passages,
        "agent",
        "List or search the archival memory",
        {200: Reply("Passages, newest first.", schemas.Archival)},
        errors=(ErrorCode.INVALID_CURSOR, *MEMORY_ERRORS),
        rate="memory_requests",
        query_bytes=SEARCH_BYTES,
    ),
    Route(
        "POST",
        "/api/v1/agent/memory/archival",
        "chat",
        add_passage,
        "agent",
        "Add a passage to the archival memory",
        {201: Reply("The passage.", schemas.Passage)},
        errors=(ErrorCode.TOO_LARGE, *MEMORY_ERRORS),
        rate="memory_requests",
        body_bytes=TEXT_BYTES,
    ),
    Route(
        "PATCH",
        "/api/v1/agent/memory/archival/{passage_id}",
        "chat",
        replace_passage,
        "agent",
        "Replace a passage of the archival memory",
        {200: Reply("The passage, with its new id.", schemas.Passage)},
        errors=(ErrorCode.NOT_FOUND, ErrorCode.TOO_LARGE, *MEMORY_ERRORS),
        rate="memory_requests",
        body_bytes=TEXT_BYTES,
    ),
    Route(
        "DELETE",
        "/api/v1/agent/memory/archival/{passage_id}",
        "chat",
        delete_passage,
        "agent",
        "Delete a passage from the archival memory",
        {204: Reply("It is gone.")},
        errors=(ErrorCode.NOT_FOUND, *MEMORY_ERRORS),
        rate="memory_requests",
    ),
)
