"""`chat/events`: opened by a token or a ticket, resumed, refused."""

import re
from datetime import timedelta

import pytest

from server.protocol.shapes import AgentStatus
from tests.unit.api.world import World

MESSAGE = "/api/v1/chat/message"
HISTORY = "/api/v1/chat/history"


async def test_a_ticket_opens_the_events_once(world: World) -> None:
    user = await world.user()
    ticket = (await user.post("/api/v1/chat/ticket")).json["ticket"]
    async with world.http.get("/api/v1/chat/events", params={"ticket": ticket}) as events:
        assert events.status == 200
        assert await events.content.readuntil(b"\n\n")
    again = await world.visitor.get("/api/v1/chat/events", params={"ticket": ticket})
    assert (again.status, again.code) == (401, "unauthorized")


EVENTS = "/api/v1/chat/events"


async def _first_id(world: World, ticket: str, **headers: str) -> str:
    """The id of a stream's first event, `ready`."""
    async with world.http.get(EVENTS, params={"ticket": ticket}, headers=headers) as events:
        assert events.status == 200
        [last_id] = re.findall(r"^id: (\S+)$", (await events.content.readuntil(b"\n\n")).decode(), re.MULTILINE)
        return str(last_id)


async def test_an_event_source_reconnects_with_its_spent_ticket_until_the_token_expires(world: World) -> None:
    user = await world.user()
    ticket = (await user.post("/api/v1/chat/ticket")).json["ticket"]
    last_id = await _first_id(world, ticket)
    for minutes in (5, 50):
        world.passed = timedelta(minutes=minutes)
        last_id = await _first_id(world, ticket, **{"Last-Event-ID": last_id})
    await user.say("hello")
    async with world.http.get(EVENTS, params={"ticket": ticket}, headers={"Last-Event-ID": last_id}) as events:
        assert b'"resumed":true' in await events.content.readuntil(b"\n\n")
        assert b"hello" in await events.content.readuntil(b"\n\n")
    world.passed = timedelta(minutes=60)
    late = await world.visitor.get(EVENTS, params={"ticket": ticket}, headers={"Last-Event-ID": last_id})
    assert (late.status, late.code) == (401, "unauthorized")


@pytest.mark.parametrize(("scope", "lets_in"), [("local", False), ("global", False), ("others", True)])
async def test_after_a_sign_out_a_spent_ticket_is_refused(world: World, scope: str, lets_in: bool) -> None:
    user = await world.user()
    ticket = (await user.post("/api/v1/chat/ticket")).json["ticket"]
    last_id = await _first_id(world, ticket)
    assert (await user.post("/api/v1/auth/logout", {"scope": scope})).status == 204
    headers = {"Last-Event-ID": last_id}
    if lets_in:
        assert await _first_id(world, ticket, **headers)
    else:
        assert (await world.visitor.get(EVENTS, params={"ticket": ticket}, headers=headers)).status == 401


@pytest.mark.parametrize("status", [AgentStatus.BLOCKED, AgentStatus.DELETING])
async def test_a_spent_ticket_of_a_blocked_account_is_refused(world: World, status: AgentStatus) -> None:
    user = await world.user()
    ticket = (await user.post("/api/v1/chat/ticket")).json["ticket"]
    last_id = await _first_id(world, ticket)
    world.set_status(user.user_id, status)
    refused = await world.visitor.get(EVENTS, params={"ticket": ticket}, headers={"Last-Event-ID": last_id})
    assert (refused.status, refused.code) == (403, "account_blocked")


async def test_a_spent_ticket_with_a_cursor_opens_only_its_own_event_stream(world: World) -> None:
    ann, ben = await world.user(), await world.user()
    tickets = [(await user.post("/api/v1/chat/ticket")).json["ticket"] for user in (ann, ben)]
    own, others = [await _first_id(world, ticket) for ticket in tickets]
    epoch, _, proof = own.split(":")
    mixed = f"{others.rpartition(':')[0]}:{proof}"
    for last_id in (others, mixed, f"{epoch}:0", f"{epoch}:0:AAAA"):
        refused = await world.visitor.get(EVENTS, params={"ticket": tickets[0]}, headers={"Last-Event-ID": last_id})
        assert (refused.status, refused.code) == (401, "unauthorized")
    assert (await world.visitor.get(EVENTS, params={"ticket": tickets[0], "after": own})).status == 401
    path = f"/api/v1/chat/stream?ticket={tickets[0]}&after={own}"
    async with world.http.ws_connect(path, headers={"Last-Event-ID": own}) as socket:
        assert (await socket.receive_json())["code"] == "unauthorized"
    assert (await world.visitor.get(HISTORY, params={"ticket": tickets[0]}, headers={"Last-Event-ID": own})).status in (
        400,
        401,
    )
    message = await world.visitor.post(
        f"{MESSAGE}?ticket={tickets[0]}", {"content": "x"}, headers={"Last-Event-ID": own}
    )
    assert message.status in (400, 401)


async def test_an_event_source_refused_by_a_retryable_error_is_asked_to_reconnect(world: World) -> None:
    user = await world.user()
    ticket = (await user.post("/api/v1/chat/ticket")).json["ticket"]
    headers = {"Last-Event-ID": await _first_id(world, ticket)}
    world.hub.draining = True
    sent_away = await world.visitor.get(EVENTS, params={"ticket": ticket}, headers=headers)
    world.hub.draining = False
    assert (sent_away.status, sent_away.headers["Content-Type"]) == (200, "text/event-stream")
    assert re.match(rb"retry: \d+\nevent: reconnect\ndata: \{.*draining.*\}\n\n$", sent_away.raw)
    assert await _first_id(world, ticket, **headers)


@pytest.mark.parametrize("place", ["after", "Last-Event-ID"])
async def test_an_invalid_cursor_does_not_spend_the_ticket(world: World, place: str) -> None:
    user = await world.user()
    ticket = (await user.post("/api/v1/chat/ticket")).json["ticket"]
    query, headers = ({"after": "nonsense"}, {}) if place == "after" else ({}, {place: "nonsense"})
    refused = await world.visitor.get("/api/v1/chat/events", params={"ticket": ticket, **query}, headers=headers)
    assert (refused.status, refused.code) == (400, "invalid_cursor")
    async with world.http.get("/api/v1/chat/events", params={"ticket": ticket}) as events:
        assert events.status == 200


async def test_events_resume_after_the_last_event_id(world: World) -> None:
    user = await world.user()
    streamed = await user.post(MESSAGE, {"content": "hello"})
    ids = re.findall(r"^id: (\S+)$", streamed.raw.decode(), re.MULTILINE)
    headers = {"Authorization": f"Bearer {user.token}", "Last-Event-ID": ids[-2]}
    async with world.http.get("/api/v1/chat/events", headers=headers) as events:
        text = ""
        while ids[-1] not in re.findall(r"^id: (\S+)$", text, re.MULTILINE):
            text += (await events.content.readuntil(b"\n\n")).decode()
    # `ready` has the client's own cursor: a client that is disconnected before the next event resumes from there.
    assert re.findall(r"^id: (\S+)$", text, re.MULTILINE) == ids[-2:]


@pytest.mark.parametrize("cursor", ["nonsense", "a:b", "x:-1", "x:1;drop"])
async def test_events_refuse_an_invalid_cursor(world: World, cursor: str) -> None:
    answer = await (await world.user()).get("/api/v1/chat/events", params={"after": cursor})
    assert (answer.status, answer.code) == (400, "invalid_cursor")


async def test_an_access_token_in_the_url_is_refused(world: World) -> None:
    user = await world.user()
    answer = await world.visitor.get("/api/v1/chat/events", params={"token": user.token or ""})
    assert (answer.status, answer.code) == (400, "invalid_request")
