"""Sign-up, sign-in, sign-out, and authentication of requests."""

import asyncio
from datetime import timedelta

import pytest

from server.protocol.shapes import AgentStatus
from tests.unit.api.world import PASSWORD, Answer, Client, World

REGISTER = {"email": "ann@example.com", "password": PASSWORD, "name": "Ann"}


async def test_registering_signs_in_and_starts_provisioning(world: World) -> None:
    answer = await world.visitor.post("/api/v1/auth/register", REGISTER)
    assert answer.status == 201
    assert answer.json["token_type"] == "bearer"
    assert answer.json["user"]["name"] == "Ann"
    assert answer.json["user"]["agent_status"] == "provisioning"
    user_id = answer.json["user"]["id"]
    await world.provisioner.ready(user_id)
    me = await Client(world.http, answer.json["access_token"]).get("/api/v1/auth/me")
    assert (me.status, me.json["id"], me.json["agent_status"]) == (200, user_id, "active")


async def test_registering_does_not_wait_for_a_slow_agent_service(world: World) -> None:
    never = asyncio.Event()

    async def hang(_operation: str) -> None:
        await never.wait()

    world.directory.before = hang
    answer = await world.visitor.post("/api/v1/auth/register", REGISTER)
    assert answer.status == 201


async def test_registering_with_confirmation_is_202_for_new_and_known_addresses(world: World) -> None:
    world.identity.confirms = True
    first = await world.visitor.post("/api/v1/auth/register", REGISTER)
    second = await world.visitor.post("/api/v1/auth/register", REGISTER)
    assert first.status == second.status == 202
    assert first.json == second.json == {"status": "confirmation_required", "email": "ann@example.com"}


async def test_a_weak_password_is_refused_with_its_own_code(world: World) -> None:
    answer = await world.visitor.post("/api/v1/auth/register", {**REGISTER, "password": "short"})
    assert (answer.status, answer.code) == (422, "weak_password")


async def test_signing_in_returns_tokens_and_continues_provisioning(world: World) -> None:
    world.directory.before = _fail
    registered = await world.visitor.post("/api/v1/auth/register", REGISTER)
    world.directory.before = None
    answer = await world.visitor.post("/api/v1/auth/login", {"email": "ann@example.com", "password": PASSWORD})
    assert answer.status == 200
    assert answer.json["user"]["id"] == registered.json["user"]["id"]
    assert await world.provisioner.ready(answer.json["user"]["id"])


async def _fail(_operation: str) -> None:
    raise ConnectionRefusedError


@pytest.mark.parametrize("password", ["x1" * 36 + "!", "é" * 36 + "!", "\U0001f600" * 18 + "!", "Pass-word1" * 20])
async def test_a_new_password_that_bcrypt_would_truncate_is_refused(world: World, password: str) -> None:
    refused = await world.visitor.post("/api/v1/auth/register", {**REGISTER, "password": password})
    assert (refused.status, refused.code) == (400, "invalid_request")
    [error] = refused.json["errors"]
    assert error["pointer"] == "/password"
    assert "at most 72 bytes" in error["detail"]
    assert str(len(password.encode())) in error["detail"]
    assert password.encode() not in refused.raw


@pytest.mark.parametrize("password", ["x1" * 36, "é" * 36, "\U0001f600" * 18])
async def test_a_password_of_72_bytes_is_accepted_and_longer_ones_may_sign_in(world: World, password: str) -> None:
    """A password that was set elsewhere may be longer."""
    assert (await world.visitor.post("/api/v1/auth/register", {**REGISTER, "password": password})).status == 201
    body = {"email": "ann@example.com", "password": password + "more"}
    assert (await world.visitor.post("/api/v1/auth/login", body)).code == "unauthorized"


async def test_a_wrong_password_is_401_and_not_quoted(world: World) -> None:
    await world.visitor.post("/api/v1/auth/register", REGISTER)
    answer = await world.visitor.post("/api/v1/auth/login", {"email": "ann@example.com", "password": "hunter2hunter2"})
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert b"hunter2" not in answer.raw


async def test_a_refresh_token_works_once(world: World) -> None:
    registered = await world.visitor.post("/api/v1/auth/register", REGISTER)
    body = {"refresh_token": registered.json["refresh_token"]}
    assert (await world.visitor.post("/api/v1/auth/refresh", body)).status == 200
    assert (await world.visitor.post("/api/v1/auth/refresh", body)).status == 401


async def test_signing_out_is_204_and_revokes_the_refresh_token(world: World) -> None:
    registered = await world.visitor.post("/api/v1/auth/register", REGISTER)
    answer = await Client(world.http, registered.json["access_token"]).post("/api/v1/auth/logout")
    assert (answer.status, answer.raw) == (204, b"")
    body = {"refresh_token": registered.json["refresh_token"]}
    assert (await world.visitor.post("/api/v1/auth/refresh", body)).status == 401


async def test_a_user_of_supabase_gets_an_account_with_the_first_request(world: World) -> None:
    user = await world.user(ready=False)
    assert user.user_id not in world.database.profiles
    assert (await user.get("/api/v1/auth/me")).status == 200
    assert await world.provisioner.ready(user.user_id)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer forged", "bearer  forged", "forged"]
)
async def test_without_a_valid_token_every_request_is_401(world: World, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = await world.visitor.get("/api/v1/auth/me", headers=headers)
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="chat"'


async def test_an_expired_token_has_its_own_code(world: World) -> None:
    user = await world.user()
    world.passed = timedelta(hours=2)
    answer = await user.get("/api/v1/auth/me")
    assert (answer.status, answer.code) == (401, "token_expired")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("status", [AgentStatus.BLOCKED, AgentStatus.DELETING])
async def test_a_closed_account_is_refused_everywhere_and_cannot_sign_in(world: World, status: AgentStatus) -> None:
    registered = await world.visitor.post("/api/v1/auth/register", REGISTER)
    user_id = registered.json["user"]["id"]
    await world.provisioner.ready(user_id)
    world.set_status(user_id, status)
    sign_in = await world.visitor.post("/api/v1/auth/login", {"email": "ann@example.com", "password": PASSWORD})
    assert (sign_in.status, sign_in.code) == (403, "account_blocked")
    request = await Client(world.http, registered.json["access_token"]).get("/api/v1/user/profile")
    assert (request.status, request.code) == (403, "account_blocked")


async def test_signing_in_works_while_the_agent_and_billing_services_are_down(world: World) -> None:
    world.directory.before = world.billing.before = _fail
    await world.visitor.post("/api/v1/auth/register", REGISTER)
    answer = await world.visitor.post("/api/v1/auth/login", {"email": "ann@example.com", "password": PASSWORD})
    assert answer.status == 200


async def test_unavailable_supabase_is_503_with_retry_after(world: World) -> None:
    world.identity.down = True
    answer = await world.visitor.post("/api/v1/auth/login", {"email": "ann@example.com", "password": PASSWORD})
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "supabase_unavailable", "5")


async def test_too_many_attempts_from_one_address_are_429_with_retry_after() -> None:
    async with World(auth_per_minute=3).serving() as world:
        body = {"email": "ann@example.com", "password": "guess-guess"}
        statuses = [(await world.visitor.post("/api/v1/auth/login", body)).status for _ in range(4)]
        refused = await world.visitor.post("/api/v1/auth/login", body)
    assert statuses == [401, 401, 401, 429]
    assert refused.code == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 20


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "no-at-sign"),
        ("email", "two words@example.com"),
        ("email", "a@" + "b" * 260),
        ("email", 5),
        ("password", ""),
        ("password", "\0" * 9),
        ("name", ""),
        ("name", "   "),
        ("name", "n" * 101),
        ("name", "a\0b"),
        ("admin", True),
    ],
)
async def test_a_wrong_field_has_a_pointer(world: World, field: str, value: object) -> None:
    answer = await world.visitor.post("/api/v1/auth/register", {**REGISTER, field: value})
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert [error["pointer"] for error in answer.json["errors"]] == [f"/{field}"]


async def test_behind_a_proxy_each_client_has_its_own_limit() -> None:
    body = {"email": "ann@example.com", "password": "wrong"}
    async with World(auth_per_minute=1, address_header="X-Real-IP").serving() as world:

        async def tried(address: str) -> int:
            headers = {"X-Real-IP": address, "X-Forwarded-For": f"{address}, 152.233.9.1"}
            return (await world.visitor.post("/api/v1/auth/login", body, headers=headers)).status

        assert [await tried("192.0.2.1"), await tried("192.0.2.1:5"), await tried("192.0.2.2")] == [401, 429, 401]


async def test_without_a_proxy_a_header_does_not_change_the_limit() -> None:
    body = {"email": "ann@example.com", "password": "wrong"}
    async with World(auth_per_minute=1).serving() as world:
        statuses = [
            (await world.visitor.post("/api/v1/auth/login", body, headers={"X-Real-IP": f"192.0.2.{n}"})).status
            for n in range(2)
        ]
    assert statuses == [401, 429]


async def test_the_owner_signs_in_while_a_thousand_addresses_try_the_password() -> None:
    async with World(sign_ins_per_minute=10, address_header="X-Real-IP").serving() as world:
        home = {"X-Real-IP": "192.0.2.1"}
        good = {"email": REGISTER["email"], "password": PASSWORD}
        await world.visitor.post("/api/v1/auth/register", REGISTER, headers=home)

        async def unknown_clients(numbers: range) -> list[Answer]:
            guess = {**good, "password": "guess"}
            tried = (
                world.visitor.post("/api/v1/auth/login", guess, headers={"X-Real-IP": f"198.51.{n // 250}.{n % 250}"})
                for n in numbers
            )
            return list(await asyncio.gather(*tried))

        first = await unknown_clients(range(500))
        owner = await world.visitor.post("/api/v1/auth/login", good, headers=home)
        answers = first + await unknown_clients(range(500, 1000))
        assert owner.status == (await world.visitor.post("/api/v1/auth/login", good, headers=home)).status == 200

    assert [answer.status for answer in answers].count(401) == 10
    refused = [answer for answer in answers if answer.status != 401]
    assert {(answer.status, answer.code) for answer in refused} == {(429, "rate_limited")}
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)


async def test_a_refresh_makes_an_address_known_as_a_sign_in_does() -> None:
    async with World(sign_ins_per_minute=1, address_header="X-Real-IP").serving() as world:
        tokens = (await world.visitor.post("/api/v1/auth/register", REGISTER)).json
        moved = {"X-Real-IP": "192.0.2.7"}
        await world.visitor.post("/api/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]}, headers=moved)
        guess = {"email": REGISTER["email"], "password": "guess"}
        await world.visitor.post("/api/v1/auth/login", guess, headers={"X-Real-IP": "198.51.100.1"})
        good = {**guess, "password": PASSWORD}
        assert (await world.visitor.post("/api/v1/auth/login", good, headers=moved)).status == 200
        elsewhere = {"X-Real-IP": "198.51.100.2"}
        assert (await world.visitor.post("/api/v1/auth/login", good, headers=elsewhere)).status == 429


async def test_new_accounts_per_minute_are_limited_for_every_way_to_open_one() -> None:
    async with World(new_accounts_per_minute=3).serving() as world:
        assert (await world.visitor.post("/api/v1/auth/register", REGISTER)).status == 201
        for _ in range(2):
            assert (await (await world.user(ready=False)).get("/api/v1/auth/me")).status == 200
        new_user = await world.user(ready=False)
        refused = [
            await new_user.get("/api/v1/auth/me"),
            await new_user.say("hello"),
            await world.visitor.post("/api/v1/auth/register", {**REGISTER, "email": "ben@example.com"}),
        ]
        assert [(answer.status, answer.code) for answer in refused] == [(429, "rate_limited")] * 3
        assert all(1 <= int(answer.headers["Retry-After"]) <= 20 for answer in refused)
        assert "ben@example.com" not in world.database.users.values()
        assert new_user.user_id not in world.database.profiles
        login = await world.visitor.post("/api/v1/auth/login", {"email": REGISTER["email"], "password": PASSWORD})
        assert login.status == 200  # an existing account does not count
        world.seconds += 20
        assert (await new_user.get("/api/v1/auth/me")).status == 200


async def test_an_account_that_could_not_be_opened_does_not_count() -> None:
    async with World(new_accounts_per_minute=1).serving() as world:
        weak = await world.visitor.post("/api/v1/auth/register", {**REGISTER, "password": "short"})
        assert weak.code == "weak_password"
        world.identity.down = True
        assert (await world.visitor.post("/api/v1/auth/register", REGISTER)).status == 503
        world.identity.down = False
        assert (await world.visitor.post("/api/v1/auth/register", REGISTER)).status == 201
