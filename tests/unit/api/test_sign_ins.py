"""Signing out: this device, another, all of them. The tokens of the others keep working."""

import pytest

from tests.unit.api.world import Client, World

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
