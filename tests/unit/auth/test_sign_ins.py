"""Rate limits of password attempts: one for all unknown addresses together, one for each known address."""

import asyncio
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from server.auth.sign_ins import KNOWN_SECONDS, RECORD_SECONDS, SignInLimits, account_name
from server.ports import SignInDevice
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.rates import RateName
from server.resilience.rate_limiter import RateLimiter
from tests.virtual_time import virtual_time

ACCOUNT_RATES: tuple[RateName, ...] = ("sign_ins", "registrations", "mails", "codes")
SECRET, OLDER = SecretStr("a secret key, long enough to use"), SecretStr("an older key, long enough to use")
ANN = "ann@example.com"
HOME, MOBILE = "192.0.2.1", "2001:db8::1"


@dataclass
class Book:
    """The database; counts its queries."""

    hashes: list[str] = field(default_factory=list)
    devices: list[SignInDevice] = field(default_factory=list)
    asked: int = 0
    unavailable: bool = False
    answers: asyncio.Event | None = None
    """Recording waits for it."""

    async def known_addresses(self, email: str) -> list[str]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.unavailable:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)
        return list(self.hashes) if email == ANN else []

    async def record_sign_in(self, user_id: str, device: SignInDevice, address_hash: str | None) -> None:
        if self.answers is not None:
            await self.answers.wait()
        if self.unavailable:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)
        self.devices.append(device)
        self.hashes += [] if address_hash is None else [address_hash]


def device_at(address: str | None, session_id: str | None = None) -> SignInDevice:
    return SignInDevice(session_id, "curl/8", address)


def answer_as(outcome: ErrorCode | None) -> None:
    """Supabase Auth's response to a sign-in."""
    if outcome is not None:
        raise PlatformError(outcome)


@dataclass
class Door:
    """Signs in; with a wrong password by default."""

    per_minute: int = 5
    keys: tuple[SecretStr, ...] = (SECRET,)
    store: Book = field(default_factory=Book)
    seconds: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        rates: dict[RateName, int] = dict.fromkeys(ACCOUNT_RATES, self.per_minute)
        limiter = RateLimiter(rates, clock=lambda: self.seconds)
        self.limits = SignInLimits(self.store, limiter, self.keys, clock=lambda: self.seconds)

    async def tries(
        self, address: str, email: str = ANN, outcome: ErrorCode | None = ErrorCode.UNAUTHORIZED
    ) -> ErrorCode | None:
        """The error of an attempt; None if it signs in."""
        try:
            async with self.limits.sign_in(email, address):
                answer_as(outcome)
        except PlatformError as error:
            self.pauses += [] if error.retry_after is None else [error.retry_after]
            return error.code
        await self.limits.signed_in("ann", email, device_at(address))
        return None

    async def exhaust(self) -> None:
        """Use up the shared limit of unknown addresses."""
        for n in range(self.per_minute):
            assert await self.tries(f"198.51.100.{n}") is ErrorCode.UNAUTHORIZED
        assert await self.tries("198.51.100.200") is ErrorCode.RATE_LIMITED


async def test_unknown_addresses_share_the_limit_of_an_account() -> None:
    door = Door()
    answers = [await door.tries(f"198.51.{n // 200}.{n % 200}") for n in range(120)]
    assert answers.count(ErrorCode.UNAUTHORIZED) == 5
    assert set(answers[5:]) == {ErrorCode.RATE_LIMITED}
    assert all(0 < pause <= 60 for pause in door.pauses)
    assert await door.tries("203.0.113.1", "ben@example.com") is ErrorCode.UNAUTHORIZED


async def test_concurrent_attempts_do_not_exceed_the_limit() -> None:
    door = Door()
    hold = asyncio.Event()

    async def slow(n: int) -> None:
        async with door.limits.sign_in(ANN, f"198.51.100.{n}"):
            await hold.wait()
            answer_as(ErrorCode.UNAUTHORIZED)

    trying = [asyncio.create_task(slow(n)) for n in range(50)]
    hold.set()
    answers = await asyncio.gather(*trying, return_exceptions=True)
    codes = [answer.code for answer in answers if isinstance(answer, PlatformError)]
    assert (codes.count(ErrorCode.UNAUTHORIZED), codes.count(ErrorCode.RATE_LIMITED)) == (5, 45)


async def test_an_address_that_signed_in_before_has_its_own_limit() -> None:
    door = Door()
    assert await door.tries(HOME, outcome=None) is None
    await door.exhaust()
    assert await door.tries(HOME, outcome=None) is None
    assert [await door.tries(HOME) for _ in range(6)] == [ErrorCode.UNAUTHORIZED] * 5 + [ErrorCode.RATE_LIMITED]
    assert await door.tries("192.0.2.2", outcome=None) is ErrorCode.RATE_LIMITED


async def test_an_address_that_signs_in_without_a_password_is_known_at_once() -> None:
    door = Door()
    await door.exhaust()
    assert await door.tries(HOME, outcome=None) is ErrorCode.RATE_LIMITED
    await door.limits.signed_in("ann", ANN, device_at(HOME))  # by a refresh token, for instance
    assert await door.tries(HOME, outcome=None) is None


async def test_a_network_of_ipv6_is_one_address() -> None:
    door = Door()
    await door.tries(MOBILE, outcome=None)
    await door.exhaust()
    assert await door.tries("2001:db8::ffff", outcome=None) is None
    assert await door.tries("2001:db8:0:1::1", outcome=None) is ErrorCode.RATE_LIMITED


async def test_unknown_addresses_may_try_again_after_retry_after() -> None:
    door = Door(per_minute=1)
    await door.exhaust()
    door.seconds += 59
    assert await door.tries("198.51.100.1") is ErrorCode.RATE_LIMITED
    door.seconds += 1
    assert await door.tries("198.51.100.1") is ErrorCode.UNAUTHORIZED


@pytest.mark.parametrize("outcome", [None, ErrorCode.SUPABASE_UNAVAILABLE, ErrorCode.RATE_LIMITED])
async def test_only_wrong_passwords_count(outcome: ErrorCode | None) -> None:
    door = Door()
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            async with door.limits.sign_in(ANN, HOME):
                _ = 1 / 0
        if outcome is not ErrorCode.RATE_LIMITED:
            assert await door.tries(HOME, outcome=outcome) is outcome
    await door.exhaust()


@pytest.mark.parametrize("same", ["ANN@example.com", " ann@EXAMPLE.com ", "Ann@Example.Com"])
async def test_spellings_of_an_e_mail_address_share_one_limit(same: str) -> None:
    door = Door()
    await door.exhaust()
    assert await door.tries("203.0.113.9", same) is ErrorCode.RATE_LIMITED


def test_letters_are_compared_as_supabase_auth_does() -> None:
    assert account_name("İ@x.y") == account_name("I@X.Y") == "i@x.y"
    assert account_name("\u212a@x.y") == "k@x.y"


async def test_another_instance_knows_the_addresses_too() -> None:
    store = Book()
    await Door(store=store).tries(HOME, outcome=None)
    door = Door(store=store)
    await door.exhaust()
    assert await door.tries(HOME, outcome=None) is None


async def test_hashes_contain_no_address_and_stay_valid_after_a_rotation_of_the_key() -> None:
    store = Book()
    await Door(store=store, keys=(OLDER,)).tries(HOME, outcome=None)
    assert HOME not in store.hashes[0]
    assert len(store.hashes[0]) == 64
    other, door = Door(store=store, keys=(SECRET,)), Door(store=store, keys=(SECRET, OLDER))
    await other.exhaust()
    assert await other.tries(HOME, outcome=None) is ErrorCode.RATE_LIMITED
    await door.exhaust()
    assert await door.tries(HOME, outcome=None) is None


async def test_concurrent_attempts_share_one_query() -> None:
    door = Door()
    await door.exhaust()
    before = door.store.asked
    await asyncio.gather(*(door.tries(f"198.51.100.{n}") for n in range(200)))
    assert door.store.asked == before
    door.seconds += KNOWN_SECONDS + 1
    await asyncio.gather(*(door.tries(f"198.51.100.{n}") for n in range(200)))
    assert door.store.asked == before + 1


async def test_while_the_database_is_unavailable_attempts_are_refused_and_the_query_is_repeated() -> None:
    door = Door()
    await door.tries(HOME, outcome=None)
    door.seconds += KNOWN_SECONDS + 1
    door.store.unavailable = True
    for n in range(5):
        await door.tries(f"198.51.100.{n}")
    assert await door.tries(HOME, outcome=None) is ErrorCode.SUPABASE_UNAVAILABLE
    door.store.unavailable = False
    assert await door.tries(HOME, outcome=None) is None


async def test_an_address_that_could_not_be_stored_is_stored_at_the_next_sign_in() -> None:
    door = Door()
    door.store.unavailable = True
    assert await door.tries(HOME, outcome=None) is None
    door.store.unavailable = False
    assert await door.tries(HOME, outcome=None) is None
    assert len(door.store.hashes) == 1


async def test_without_a_limit_nothing_is_counted_or_stored() -> None:
    door = Door(per_minute=0)
    assert {await door.tries(HOME) for _ in range(50)} == {ErrorCode.UNAUTHORIZED}
    assert await door.tries(HOME, outcome=None) is None
    assert (door.store.hashes, door.store.asked) == ([], 0)


async def test_registrations_of_one_address_are_limited_beside_its_sign_ins() -> None:
    door = Door()
    for _ in range(5):
        await door.limits.sign_up(ANN)
    with pytest.raises(PlatformError, match="rate_limited") as refusal:
        await door.limits.sign_up("ANN@example.com")
    assert refusal.value.members["rate_limit"] == "registrations"
    await door.limits.sign_up("ben@example.com")
    await door.limits.mail(ANN)
    await door.limits.code(ANN)


async def test_a_sign_in_keeps_the_device_of_its_last_request_for_tokens() -> None:
    """A phone that comes home again; nor can an instance know what another one has stored meanwhile."""
    door = Door()
    devices = [device_at(address, "1") for address in (HOME, MOBILE, HOME, HOME)]
    for device in devices:
        await door.limits.signed_in("ann", ANN, device)
    assert door.store.devices == devices
    home, mobile, *again = door.store.hashes
    assert again == [home, home] != [mobile, home]


@pytest.mark.parametrize(("per_minute", "address"), [(0, HOME), (5, None)])
async def test_a_device_is_recorded_without_a_limit_and_without_an_address(
    per_minute: int, address: str | None
) -> None:
    door = Door(per_minute=per_minute)
    await door.limits.signed_in("ann", ANN, device_at(address, "1"))
    assert (door.store.devices, door.store.hashes) == ([device_at(address, "1")], [])


async def test_where_neither_sign_in_nor_address_is_known_the_database_is_not_asked() -> None:
    door = Door()
    await door.limits.signed_in("ann", ANN, device_at(None))
    assert door.store.devices == []


@virtual_time
async def test_a_sign_in_waits_a_second_at_most_until_it_is_recorded() -> None:
    door = Door()
    door.store.answers = asyncio.Event()
    begun = asyncio.get_running_loop().time()
    await door.limits.signed_in("ann", ANN, device_at(HOME, "1"))
    assert asyncio.get_running_loop().time() - begun == RECORD_SECONDS
    assert door.store.devices == []
    door.store.answers.set()
    await door.limits.signed_in("ann", ANN, device_at(HOME, "2"))
    assert door.store.devices == [device_at(HOME, "1"), device_at(HOME, "2")]
    await door.limits.aclose()
