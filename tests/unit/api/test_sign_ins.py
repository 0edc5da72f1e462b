"""Signing out: this device, another, all of them. The tokens of the others keep working."""

import asyncio

import pytest

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from tests.unit.api.world import PASSWORD, Client, World

SESSIONS = "/api/v1/auth/sessions"


async def devices(world: World) -> tuple[Client, Client]:
    """Two sign-ins of one user, both used before."""
    phone = await world.user()
    laptop = Client(world.http, world.token(phone.user_id), phone.user_id)
    for device in (phone, laptop):
        assert (await device.get("/api/v1/auth/me")).status == 200
    return phone, laptop


async def test_sessions_are_listed_with_the_current_one(world: World) -> None:
    phone, laptop = await devices(world)
    await world.user()
    listed = (await phone.get(SESSIONS)).json["data"]
    assert [one["current"] for one in listed].count(True) == 1
    assert len(listed) == 2
    others = (await laptop.get(SESSIONS)).json["data"]
    assert {one["id"] for one in others} == {one["id"] for one in listed}
    assert [one["current"] for one in others] != [one["current"] for one in listed]


async def test_one_device_signs_out_another(world: World) -> None:
    phone, laptop = await devices(world)
    [other] = [one["id"] for one in (await phone.get(SESSIONS)).json["data"] if not one["current"]]
    assert (await phone.delete(f"{SESSIONS}/{other}")).status == 204
    refused = await laptop.get("/api/v1/auth/me")
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert (await phone.get("/api/v1/auth/me")).status == 200
    assert (await phone.delete(f"{SESSIONS}/{other}")).code == "not_found"


async def test_a_session_of_another_user_is_neither_listed_nor_ended(world: World) -> None:
    phone, _ = await devices(world)
    ben = await world.user()
    [his] = (await ben.get(SESSIONS)).json["data"]
    assert (await phone.delete(f"{SESSIONS}/{his['id']}")).code == "not_found"
    assert (await ben.get("/api/v1/auth/me")).status == 200


@pytest.mark.parametrize(
    ("scope", "phone_status", "laptop_status"), [("local", 401, 200), ("others", 200, 401), ("global", 401, 401)]
)
async def test_tokens_of_the_signed_out_devices_are_refused_at_once(
    world: World, scope: str, phone_status: int, laptop_status: int
) -> None:
    phone, laptop = await devices(world)
    ticket = (await laptop.post("/api/v1/chat/ticket")).json["ticket"]
    assert (await phone.post("/api/v1/auth/logout", {"scope": scope})).status == 204
    assert (await phone.get("/api/v1/auth/me")).status == phone_status
    assert (await laptop.get("/api/v1/auth/me")).status == laptop_status
    async with world.http.get(f"/api/v1/chat/events?ticket={ticket}") as events:
        assert events.status == laptop_status


async def test_signing_out_twice_is_refused_the_second_time(world: World) -> None:
    phone, _ = await devices(world)
    assert (await phone.post("/api/v1/auth/logout", {})).status == 204
    assert (await phone.post("/api/v1/auth/logout", {})).status == 401


async def signed_in(world: World, user_agent: str | None) -> Client:
    """Ann, after she has signed in with this User-Agent; None: her client sends none."""
    ann = {"email": "ann@example.com", "password": PASSWORD}
    if "ann@example.com" not in world.database.users.values():
        await world.visitor.post("/api/v1/auth/register", ann)
    headers, skipped = ({}, ["User-Agent"]) if user_agent is None else ({"User-Agent": user_agent}, [])
    answer = await world.visitor.post("/api/v1/auth/login", ann, headers=headers, skip_auto_headers=skipped)
    return Client(world.http, answer.json["access_token"], answer.json["user"]["id"])


async def own_sign_in(client: Client) -> tuple[str | None, str | None]:
    [own] = [one for one in (await client.get(SESSIONS)).json["data"] if one["current"]]
    return own["user_agent"], own["address"]


async def test_a_sign_in_is_listed_with_the_device_that_made_it(world: World) -> None:
    phone, laptop = await signed_in(world, "Phone/1"), await signed_in(world, "Laptop/2 (Linux)")
    assert await own_sign_in(phone) == ("Phone/1", "127.0.0.1")
    assert await own_sign_in(laptop) == ("Laptop/2 (Linux)", "127.0.0.1")
    listed = (await phone.get(SESSIONS)).json["data"]
    assert [one["user_agent"] for one in listed][:2] == ["Laptop/2 (Linux)", "Phone/1"]


@pytest.mark.parametrize("way", ["register", "refresh", "verify", "reset"])
async def test_every_way_to_sign_in_names_the_device(world: World, way: str) -> None:
    body: dict[str, str] = {"email": "ann@example.com", "password": PASSWORD}
    registered = await world.visitor.post("/api/v1/auth/register", body)
    if way == "register":
        body |= {"email": "ben@example.com"}
    elif way == "refresh":
        body = {"refresh_token": registered.json["refresh_token"]}
    else:
        await world.visitor.post("/api/v1/auth/recover", {"email": "ann@example.com"})
        code = {"email": "ann@example.com", "token": world.identity.mails[-1].code}
        body = {**code, "type": "recovery"} if way == "verify" else {**code, "password": PASSWORD}
    answer = await world.visitor.post(f"/api/v1/auth/{way}", body, headers={"User-Agent": f"By {way}"})
    user = Client(world.http, answer.json["access_token"], answer.json["user"]["id"])
    assert await own_sign_in(user) == (f"By {way}", "127.0.0.1")


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (None, None),
        ("  ", None),
        ("x" * 4_000, "x" * 512),
        ("a\tb", "ab"),
        ("Браузер", "Браузер"),
        ("right\u202eleft", "rightleft"),
    ],
)
async def test_a_user_agent_is_stored_cut_and_without_control_characters(
    world: World, sent: str | None, stored: str | None
) -> None:
    assert await own_sign_in(await signed_in(world, sent)) == (stored, "127.0.0.1")


async def test_a_user_agent_of_bytes_that_are_no_text_signs_in(world: World) -> None:
    """aiohttp reads such bytes as lone surrogates, which no database stores."""
    user = await signed_in(world, "x")
    body = b'{"email": "ann@example.com", "password": "%s"}' % PASSWORD.encode()
    reader, writer = await asyncio.open_connection(world.http.host, world.http.port)
    head = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(head + b"User-Agent: a\xff\xfe\x80b\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    assert "ab" in [one["user_agent"] for one in (await user.get(SESSIONS)).json["data"]]


async def test_a_sign_in_succeeds_while_its_device_cannot_be_stored(world: World) -> None:
    await signed_in(world, "First/1")

    async def refuse(operation: str) -> None:
        if operation == "record_sign_in":
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    world.database.before = refuse
    user = await signed_in(world, "Second/2")
    world.database.before = None
    assert await own_sign_in(user) == (None, None)
