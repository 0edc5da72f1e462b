"""Confirmation, recovery, and changes of the address and the password, by the mails of Auth."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from server.auth.uniform_delay import SECONDS
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import AgentStatus
from tests.fakes.identity import FakeMail
from tests.unit.api.world import PASSWORD, Answer, Client, World

REGISTER = {"email": "ann@example.com", "password": PASSWORD, "name": "Ann"}
NEW = "another horse battery"
AUTH = "/api/v1/auth"


async def registered(world: World) -> tuple[Client, str]:
    """A user with a password, signed in; and the refresh token."""
    answer = await world.visitor.post(f"{AUTH}/register", REGISTER)
    return Client(world.http, answer.json["access_token"], answer.json["user"]["id"]), answer.json["refresh_token"]


async def login(world: World, password: str = PASSWORD, email: str = REGISTER["email"]) -> Answer:
    return await world.visitor.post(f"{AUTH}/login", {"email": email, "password": password})


def by_code(mail: FakeMail) -> dict[str, str]:
    return {"email": mail.to, "token": mail.code}


def by_link(mail: FakeMail) -> dict[str, str]:
    return {"token_hash": mail.token_hash}


@pytest.mark.parametrize("proof", [by_code, by_link])
async def test_a_confirmed_address_is_signed_in_and_gets_an_account(world: World, proof: Any) -> None:
    world.identity.confirms = True
    assert (await world.visitor.post(f"{AUTH}/register", REGISTER)).status == 202
    assert (await login(world)).status == 401
    [mail] = world.identity.mails

    answer = await world.visitor.post(f"{AUTH}/verify", {**proof(mail), "type": "signup"})

    assert answer.status == 200
    assert (await Client(world.http, answer.json["access_token"]).get(f"{AUTH}/me")).json["email"] == REGISTER["email"]
    assert (await login(world)).status == 200
    again = await world.visitor.post(f"{AUTH}/verify", {**proof(mail), "type": "signup"})
    assert (again.status, again.code) == (403, "otp_expired")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"type": "signup"},
        {"token_hash": "x"},
        {"token_hash": "x", "type": "sms"},
        {"email": "ann@example.com", "type": "signup"},
        {"token": "123456", "type": "signup"},
        {"token_hash": "x", "email": "ann@example.com", "token": "123456", "type": "signup"},
        {"code": "x"},
        {"code_verifier": "x"},
        {"code": "x", "code_verifier": "y", "type": "signup"},
        {"code": "x", "code_verifier": "y", "token_hash": "z"},
        {"token_hash": "x" * 513, "type": "signup"},
    ],
)
async def test_an_incomplete_or_ambiguous_proof_is_an_invalid_request(world: World, body: dict[str, str]) -> None:
    answer = await world.visitor.post(f"{AUTH}/verify", body)
    assert (answer.status, answer.code) == (400, "invalid_request")


async def test_a_confirmation_mail_is_sent_again(world: World) -> None:
    world.identity.confirms = True
    await world.visitor.post(f"{AUTH}/register", REGISTER)
    assert (await world.visitor.post(f"{AUTH}/resend", {"email": REGISTER["email"]})).status == 202
    first, second = world.identity.mails
    assert second.to == first.to
    answer = await world.visitor.post(f"{AUTH}/verify", {**by_code(second), "type": "signup"})
    assert answer.status == 200


@pytest.mark.parametrize("endpoint", ["resend", "recover"])
async def test_the_answer_and_its_time_are_the_same_whether_an_account_exists(world: World, endpoint: str) -> None:
    await registered(world)
    answers = []
    for email in (REGISTER["email"], "nobody@example.com"):
        world.delays.clear()
        answer = await world.visitor.post(f"{AUTH}/{endpoint}", {"email": email})
        answers.append((answer.status, answer.json["status"], world.delays.copy()))
    assert answers == [(202, "mail_requested", [SECONDS])] * 2


async def test_a_slow_mail_server_delays_no_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    never = asyncio.Event()

    async def slow(*_: object, **__: object) -> None:
        await never.wait()

    monkeypatch.setattr(type(world.identity), "recover", slow)
    assert (await world.visitor.post(f"{AUTH}/recover", {"email": "ann@example.com"})).status == 202


async def test_a_refused_sign_in_takes_the_same_time_whether_an_account_exists(world: World) -> None:
    await registered(world)
    refusals = []
    for email in (REGISTER["email"], "nobody@example.com"):
        world.delays.clear()
        answer = await login(world, "wrong", email)
        [delay] = world.delays
        refusals.append((answer.status, answer.json["detail"], 0 < delay <= SECONDS))
    assert refusals[0] == refusals[1]
    assert refusals[0][2]
    world.delays.clear()
    assert (await login(world)).status == 200
    assert not world.delays


async def test_a_registration_to_confirm_takes_the_same_time_whether_the_address_is_known(world: World) -> None:
    world.identity.confirms = True
    for _ in range(2):
        assert (await world.visitor.post(f"{AUTH}/register", REGISTER)).status == 202
    assert len(world.delays) == 2


@pytest.mark.parametrize("proof", [by_code, by_link])
async def test_a_forgotten_password_is_set_anew_and_other_sign_ins_end(world: World, proof: Any) -> None:
    user, _ = await registered(world)
    assert (await world.visitor.post(f"{AUTH}/recover", {"email": REGISTER["email"]})).status == 202
    [mail] = world.identity.mails

    answer = await world.visitor.post(f"{AUTH}/reset", {**proof(mail), "password": NEW})

    assert (answer.status, answer.json["user"]["id"]) == (200, user.user_id)
    assert ((await login(world, NEW)).status, (await login(world)).status) == (200, 401)
    kept = world.identity.access[answer.json["access_token"]].session_id
    ended = world.identity.access[str(user.token)].session_id
    assert kept in world.database.sign_ins
    assert ended not in world.database.sign_ins
    again = await world.visitor.post(f"{AUTH}/reset", {**proof(mail), "password": NEW})
    assert (again.status, again.code) == (403, "otp_expired")


async def test_a_code_for_another_purpose_resets_no_password(world: World) -> None:
    world.identity.confirms = True
    await world.visitor.post(f"{AUTH}/register", REGISTER)
    [mail] = world.identity.mails
    answer = await world.visitor.post(f"{AUTH}/reset", {**by_code(mail), "password": NEW})
    assert (answer.status, answer.code) == (403, "otp_expired")


async def test_after_a_weak_new_password_another_one_can_be_chosen(world: World) -> None:
    """The mail's code is used up by then."""
    await registered(world)
    await world.visitor.post(f"{AUTH}/recover", {"email": REGISTER["email"]})
    weak = await world.visitor.post(f"{AUTH}/reset", {**by_code(world.identity.mails[0]), "password": "short"})
    assert (weak.status, weak.code) == (422, "weak_password")
    recovered = Client(world.http, weak.json["session"]["access_token"])
    assert (await recovered.post(f"{AUTH}/password", {"password": NEW})).status == 204
    assert (await login(world, NEW)).status == 200


async def test_a_password_is_changed_with_the_current_one_and_other_sign_ins_end(world: World) -> None:
    await registered(world)
    other = (await login(world)).json
    tokens = (await login(world)).json
    world.passed = timedelta(minutes=11)
    user = Client(world.http, tokens["access_token"])

    refused = await user.post(f"{AUTH}/password", {"password": NEW})
    wrong = await user.post(f"{AUTH}/password", {"password": NEW, "current_password": "wrong"})
    changed = await user.post(f"{AUTH}/password", {"password": NEW, "current_password": PASSWORD})

    assert [(a.status, a.code) for a in (refused, wrong)] == [(403, "reauthentication_required")] * 2
    assert (changed.status, changed.raw) == (204, b"")
    assert (await login(world, NEW)).status == 200
    sessions = {
        name: world.identity.access[t["access_token"]].session_id for name, t in (("own", tokens), ("other", other))
    }
    assert sessions["own"] in world.database.sign_ins
    assert sessions["other"] not in world.database.sign_ins


async def test_the_check_of_the_current_password_leaves_no_sign_in(world: World) -> None:
    user, _ = await registered(world)
    await user.post(f"{AUTH}/email", {"email": "new@example.com", "current_password": PASSWORD})
    assert len(world.database.sign_ins) == 1


async def test_a_password_that_was_changed_is_no_error_though_the_other_sign_ins_could_not_be_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, _ = await registered(world)

    async def unavailable(*_: object) -> None:
        raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)

    monkeypatch.setattr(type(world.identity), "sign_out", unavailable)
    assert (await user.post(f"{AUTH}/password", {"password": NEW})).status == 204
    assert (await login(world, NEW)).status == 200


async def test_a_sign_in_of_the_last_ten_minutes_needs_no_password_but_a_refresh_is_none(world: World) -> None:
    user, refresh_token = await registered(world)
    assert (await user.post(f"{AUTH}/password", {"password": NEW})).status == 204
    refreshed = await world.visitor.post(f"{AUTH}/refresh", {"refresh_token": refresh_token})
    again = Client(world.http, refreshed.json["access_token"])
    refused = await again.post(f"{AUTH}/password", {"password": PASSWORD})
    assert (refused.status, refused.code) == (403, "reauthentication_required")


async def test_a_wrong_current_password_counts_as_a_wrong_sign_in() -> None:
    async with World(sign_ins_per_minute=2).serving() as world:
        user, _ = await registered(world)
        world.database.addresses.clear()
        statuses = [
            (await user.post(f"{AUTH}/password", {"password": NEW, "current_password": "wrong"})).status
            for _ in range(3)
        ]
        assert statuses == [403, 403, 429]


@pytest.mark.parametrize("endpoint", ["password", "email"])
async def test_changes_need_a_token(world: World, endpoint: str) -> None:
    answer = await world.visitor.post(f"{AUTH}/{endpoint}", {"password": NEW})
    assert (answer.status, answer.code) == (401, "unauthorized")


async def test_a_new_address_takes_effect_when_its_mail_is_confirmed(world: World) -> None:
    user, _ = await registered(world)
    answer = await user.post(f"{AUTH}/email", {"email": "new@example.com"})
    assert (answer.status, answer.json) == (202, {"status": "confirmation_required", "email": "new@example.com"})
    assert (await user.get(f"{AUTH}/me")).json["email"] == REGISTER["email"]

    [mail] = world.identity.mails
    verified = await world.visitor.post(f"{AUTH}/verify", {**by_link(mail), "type": "email_change"})

    assert verified.json["user"]["email"] == "new@example.com"
    assert (await login(world, email="new@example.com")).status == 200


async def test_asking_for_an_address_of_another_user_is_answered_the_same(world: World) -> None:
    taken = world.database.users[(await world.user()).user_id]
    user, _ = await registered(world)
    free = await user.post(f"{AUTH}/email", {"email": "new@example.com"})
    other = await user.post(f"{AUTH}/email", {"email": taken})
    assert (free.status, free.json["status"]) == (other.status, other.json["status"]) == (202, "confirmation_required")
    assert [mail.to for mail in world.identity.mails] == ["new@example.com"]
    assert len(world.delays) == 2


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("register", {**REGISTER, "email": "ben@example.com"}),
        ("login", {"email": REGISTER["email"], "password": PASSWORD}),
        ("recover", {"email": REGISTER["email"]}),
        ("resend", {"email": REGISTER["email"]}),
        ("verify", {"email": REGISTER["email"], "token": "123456", "type": "signup"}),
        ("reset", {"email": REGISTER["email"], "token": "123456", "password": NEW}),
        ("password", {"password": NEW, "current_password": PASSWORD}),
        ("email", {"email": "new@example.com", "current_password": PASSWORD}),
    ],
)
async def test_a_captchas_token_is_passed_on(world: World, endpoint: str, body: dict[str, str]) -> None:
    user, _ = await registered(world)
    world.identity.captcha = "solved"
    unsolved = await user.post(f"{AUTH}/{endpoint}", body)
    assert (unsolved.status, unsolved.code) == (400, "captcha_failed")
    solved = await user.post(f"{AUTH}/{endpoint}", {**body, "captcha_token": "solved"})
    assert solved.status < 300 or solved.code == "otp_expired"


@pytest.mark.parametrize("endpoint", ["recover", "resend"])
async def test_mails_to_an_address_are_limited_whether_an_account_exists_or_not(endpoint: str) -> None:
    async with World(sign_ins_per_minute=2).serving() as world:
        for email in ("ann@example.com", "nobody@example.com"):
            body = {"email": email}
            answers = [await world.visitor.post(f"{AUTH}/{endpoint}", body) for _ in range(3)]
            assert [answer.status for answer in answers] == [202, 202, 429]
            assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60


async def test_guesses_of_a_code_are_limited_per_account() -> None:
    async with World(sign_ins_per_minute=2).serving() as world:
        body = {"email": "ann@example.com", "token": "123456"}
        for endpoint, more in (("verify", {"type": "signup"}), ("reset", {"password": NEW})):
            codes = [(await world.visitor.post(f"{AUTH}/{endpoint}", body | more)).code for _ in range(3)]
            assert codes[-1] == "rate_limited"


@pytest.mark.parametrize("endpoint", ["verify", "resend", "recover", "reset", "password", "email"])
async def test_each_flow_is_limited_per_address(endpoint: str) -> None:
    async with World(auth_per_minute=1).serving() as world:
        codes = [(await world.visitor.post(f"{AUTH}/{endpoint}", {})).code for _ in range(2)]
    assert codes[-1] == "rate_limited"
    assert codes[0] != "rate_limited"


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("verify", {"token_hash": "x", "type": "signup"}),
        ("resend", {"email": "ann@example.com"}),
        ("recover", {"email": "ann@example.com"}),
        ("reset", {"token_hash": "x", "password": NEW}),
        ("password", {"password": NEW}),
        ("email", {"email": "new@example.com"}),
    ],
)
async def test_an_unavailable_auth_is_503(world: World, endpoint: str, body: dict[str, str]) -> None:
    user, _ = await registered(world)
    world.identity.down = True
    answer = await user.post(f"{AUTH}/{endpoint}", body)
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "supabase_unavailable", "5")


async def test_a_blocked_user_who_proves_the_address_is_refused(world: World) -> None:
    user, _ = await registered(world)
    await world.provisioner.ready(user.user_id)
    world.set_status(user.user_id, AgentStatus.BLOCKED)
    await world.visitor.post(f"{AUTH}/recover", {"email": REGISTER["email"]})
    answer = await world.visitor.post(f"{AUTH}/reset", {**by_code(world.identity.mails[0]), "password": NEW})
    assert (answer.status, answer.code) == (403, "account_blocked")
    assert (await login(world, NEW)).status == 401
