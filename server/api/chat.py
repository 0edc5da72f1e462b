"""The chat over REST: send, wait, history, cancel and retry. `server.streaming` serves the streams."""

import asyncio
import uuid
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from server.api import schemas
from server.api.models import CancelTurn, EventsQuery, HistoryQuery, SendMessage
from server.http.app_keys import EVENT_STREAMS, HUB, LIMITER, READS, SETTINGS, SOCKETS, TICKETS
from server.http.content_negotiation import prefers_stream, wants_async
from server.http.inputs import SEARCH_BYTES, TEXT_BYTES
from server.http.middlewares import REQUEST_ID
from server.http.problems import problem
from server.http.responses import json_response
from server.http.routes import ACCESS, Reply, Route, authenticate
from server.ports import MessagePage, NewTurn, Principal
from server.protocol.codes import ErrorCode
from server.protocol.cursors import EventCursor, decode_history_cursor, encode_history_cursor
from server.protocol.errors import FieldError, PlatformError
from server.protocol.frames import FrameId
from server.protocol.shapes import Turn, TurnStatus, wire_time
from server.sessions.hub import TurnUnsentError

log = structlog.get_logger(__name__)

_DRAINED_READ_SECONDS: Final = 0.5
"""The timeout of the last read of a turn on a drained server, which then ends all requests."""

_MESSAGE_ID: TypeAdapter[str] = TypeAdapter(FrameId)


async def message(request: web.Request, principal: Principal, body: SendMessage) -> web.StreamResponse:
    """Send a message. The response is the turn's events, the ended turn, or the turn's location."""
    new = NewTurn.of(principal.user_id, _client_message_id(request, body), body.content, body.on_busy)
    at_once = wants_async(request.headers.getall("Prefer", []))
    stream = body.stream
    if stream is None:
        stream = not at_once and prefers_stream(request.headers.get("Accept"))
    if stream:
        try:
            return await request.app[EVENT_STREAMS].stream_turn(request, principal, new)
        except TurnUnsentError as unsent:
            return _ended(request, unsent.turn)
    accepted = (await request.app[HUB].send(new)).turn
    if accepted.status is TurnStatus.UNSENT:
        return _ended(request, accepted)
    location = {"Location": f"/api/v1/chat/turns/{accepted.id}"}
    if at_once:
        return json_response(accepted.wire(), 202, {**location, "Preference-Applied": "respond-async"})
    latest = await _after_waiting(request, principal, accepted)
    return _ended(request, latest) if latest.status.ended else json_response(latest.wire(), 202, location)


async def _after_waiting(request: web.Request, principal: Principal, accepted: Turn) -> Turn:
    """The turn after its end or after `response_seconds`. An accepted turn is never answered by an error: if the
    database is unavailable, or too slow for a draining server, the turn is returned as it was accepted."""
    hub, seconds = request.app[HUB], request.app[SETTINGS].limits.response_seconds
    try:
        ended = await hub.wait_for_end(principal.user_id, accepted.id, seconds)
        if ended is not None:
            return ended
        async with asyncio.timeout(_DRAINED_READ_SECONDS if hub.draining else None):
            return await request.app[READS].turn(principal, accepted.id) or accepted
    except (PlatformError, TimeoutError) as error:
        log.warning("chat.wait_failed", turn_id=accepted.id, code=getattr(error, "code", "too_slow"))
        return accepted


def _ended(request: web.Request, turn: Turn) -> web.Response:
    """The response of an ended turn: the turn, or if it failed, a problem with the status of its error."""
    if turn.status not in (TurnStatus.FAILED, TurnStatus.UNSENT) or turn.error is None:
        return json_response(turn.wire())
    failure = turn.error
    error = PlatformError(failure.code, failure.message, retryable=failure.retryable, retry_after=failure.retry_after)
    return problem(error, request[REQUEST_ID], turn=turn)


def _client_message_id(request: web.Request, body: SendMessage) -> str:
    """The client's id of the message, from header or body; a generated one if there is none."""
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return body.client_message_id or str(uuid.uuid4())
    try:
        _MESSAGE_ID.validate_python(header)
    except ValidationError as cause:
        message = "Idempotency-Key must be 1 to 128 visible ASCII characters."
        raise PlatformError(ErrorCode.INVALID_REQUEST, message) from cause
    if body.client_message_id not in (None, header):
        raise PlatformError(
            ErrorCode.INVALID_REQUEST,
            "Idempotency-Key and client_message_id differ.",
            errors=(FieldError("/client_message_id", "must equal the Idempotency-Key header"),),
        )
    return header


async def history(request: web.Request, principal: Principal, query: HistoryQuery) -> web.Response:
    """The conversation, or with `query` a search in it. The cursor of a message that was found, as `before` and as
    `after` without a query, gives the messages around it."""
    before = None if query.before is None else decode_history_cursor(query.before)
    after = None if query.after is None else decode_history_cursor(query.after)
    if query.query is not None:
        await request.app[LIMITER].take("searches", principal.user_id)
    reads = request.app[READS]
    read = reads.history if query.query is None else partial(reads.search, query=query.query)
    page = await read(principal, limit=query.limit, before=before, after=after, with_steps=query.include is not None)
    return json_response(
        {
            "data": [{**message.wire(), "cursor": encode_history_cursor(message.position)} for message in page.data],
            "has_more": page.has_more,
            "next_cursor": _next_cursor(page, after),
        }
    )


def _next_cursor(page: MessagePage, after: int | None) -> str | None:
    """The cursor of the next page: of older messages, if there are more; of newer ones always, as more may follow."""
    if after is not None:
        return encode_history_cursor(page.data[0].position if page.data else after)
    return encode_history_cursor(page.data[-1].position) if page.has_more else None


async def turn(request: web.Request, principal: Principal, turn_id: UUID) -> web.Response:
    found = await request.app[READS].turn(principal, str(turn_id), with_steps=True)
    if found is None:
        raise PlatformError(ErrorCode.NOT_FOUND)
    return json_response(found.wire())


async def retry(request: web.Request, principal: Principal, turn_id: UUID) -> web.Response:
    """Retry a failed, cancelled or unsent turn: the same turn with its next attempt."""
    accepted = (await request.app[HUB].retry(principal.user_id, str(turn_id))).turn
    return _ended(request, accepted) if accepted.status is TurnStatus.UNSENT else json_response(accepted.wire())


async def cancel(request: web.Request, principal: Principal, body: CancelTurn) -> web.Response:
    """Cancel a turn. A running one ends within seconds and keeps its text."""
    turn_id = None if body.turn_id is None else str(body.turn_id)
    return json_response((await request.app[HUB].cancel(principal.user_id, turn_id)).turn.wire())


async def ticket(request: web.Request, principal: Principal) -> web.Response:
    """A ticket that opens chat/stream or chat/events once, for clients that cannot set headers there."""
    issued = request.app[TICKETS].issue(principal, "chat")
    return json_response({"ticket": issued.text, "expires_at": wire_time(issued.expires_at)})


async def events(request: web.Request, query: EventsQuery) -> web.StreamResponse:
    """The session's events as SSE, after Last-Event-ID, else after `after`: a browser reconnects with the same URL."""
    last_id = request.headers.get("Last-Event-ID")
    last_seen = EventCursor.parse(last_id) if last_id else None
    after = last_seen if last_seen is not None or query.after is None else EventCursor.parse(query.after)
    streams = request.app[EVENT_STREAMS]
    try:
        principal = await authenticate(request, ticket_allowed=True, last_seen=last_seen)
        return await streams.stream_session(request, principal, after)
    except PlatformError as error:
        # A refused EventSource does not reconnect. A cursor with a proof shows that the client is one.
        if query.ticket is None or last_seen is None or last_seen.proof is None or not error.retryable:
            raise
        log.info("chat.events_postponed", code=error.code)
        return await streams.ask_to_reconnect(request, error)


async def stream(request: web.Request) -> web.StreamResponse:
    return await request.app[SOCKETS].handle(request, request[ACCESS])


_TURN = Reply("The turn.", schemas.Turn)
_STREAM_ERRORS = (ErrorCode.INVALID_CURSOR, ErrorCode.RATE_LIMITED, ErrorCode.DRAINING)

ROUTES = (
    Route(
        "POST",
        "/api/v1/chat/message",
        "chat",
        message,
        "chat",
        "Send a message to the agent",
        {
            200: Reply("The turn's events, or the ended turn.", schemas.Turn, stream=True),
            202: Reply("The turn continues; Location is its URL.", schemas.Turn),
        },
        errors=(
            ErrorCode.BUDGET_EXCEEDED,
            ErrorCode.BUSY,
            ErrorCode.ID_CONFLICT,
            ErrorCode.QUEUE_FULL,
            ErrorCode.RATE_LIMITED,
            ErrorCode.MODEL_ERROR,
            ErrorCode.LETTA_UNAVAILABLE,
            ErrorCode.LITELLM_UNAVAILABLE,
            ErrorCode.AGENT_UNAVAILABLE,
            ErrorCode.KEY_REFUSED,
            ErrorCode.OVERLOADED,
            ErrorCode.DRAINING,
            ErrorCode.TURN_TIMEOUT,
        ),
        headers={
            "Idempotency-Key": "client_message_id, as a header.",
            "Prefer": "`respond-async`: respond 202 at once.",
        },
        body_bytes=TEXT_BYTES,
    ),
    Route(
        "GET",
        "/api/v1/chat/history",
        "read",
        history,
        "chat",
        "The conversation, newest first, or a search in it",
        {200: Reply("A page of messages.", schemas.History)},
        errors=(ErrorCode.INVALID_CURSOR,),
        query_bytes=SEARCH_BYTES,
    ),
    Route(
        "GET",
        "/api/v1/chat/turns/{turn_id}",
        "read",
        turn,
        "chat",
        "One turn",
        {200: _TURN},
        errors=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        "POST",
        "/api/v1/chat/turns/{turn_id}/retry",
        "chat",
        retry,
        "chat",
        "Retry a turn",
        {200: _TURN},
        errors=(
            ErrorCode.BUDGET_EXCEEDED,
            ErrorCode.NOT_FOUND,
            ErrorCode.NOT_RETRYABLE,
            ErrorCode.RATE_LIMITED,
            ErrorCode.QUEUE_FULL,
            ErrorCode.DRAINING,
        ),
    ),
    Route(
        "POST",
        "/api/v1/chat/cancel",
        "chat",
        cancel,
        "chat",
        "Cancel a turn",
        {200: _TURN},
        errors=(ErrorCode.NOT_FOUND,),
    ),
    Route(
        "POST",
        "/api/v1/chat/ticket",
        "read",
        ticket,
        "chat",
        "A ticket for a socket",
        {200: Reply("The ticket: single use, 30 seconds.", schemas.Ticket)},
    ),
    Route(
        "GET",
        "/api/v1/chat/events",
        "read",
        events,
        "chat",
        "The session's events (SSE)",
        {200: Reply("Events until `event: reconnect`.", stream=True)},
        errors=_STREAM_ERRORS,
        credential="ticket",
        headers={
            "Last-Event-ID": "The id of the last event, to resume after it; takes precedence over `?after=`. For a"
            " stream that a ticket opened, it makes the spent ticket valid again."
        },
    ),
    Route(
        "GET",
        "/api/v1/chat/stream",
        "chat",
        stream,
        "chat",
        "The session's events and commands (WebSocket)",
        {101: Reply("The connection is a WebSocket now.")},
        errors=(*_STREAM_ERRORS, ErrorCode.OVERLOADED),
        credential="socket",
        parameters=EventsQuery,
    ),
)
