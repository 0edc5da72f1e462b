"""How often one account's password may be tried: by all strangers together, and by whoever signed in before."""

import asyncio
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from server.auth.sign_ins import KNOWN_SECONDS, SignInLimits, account_name
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience.token_buckets import Buckets

SECRET, OLDER = SecretStr("a secret key, long enough to use"), SecretStr("an older key, long enough to use")
ANN = "ann@example.com"
HOME, MOBILE = "192.0.2.1", "2001:db8::1"


@dataclass
class Book:
    """The database, which counts how often it is asked."""

    hashes: list[str] = field(default_factory=list)
    asked: int = 0
    away: bool = False

    async def known_addresses(self, email: str) -> list[str]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)
        return list(self.hashes) if email == ANN else []

    async def note_address(self, user_id: str, address_hash: str) -> None:
        if self.away:
            raise PlatformError(ErrorCode.SUPABASE_UNAVAILABLE)
        self.hashes.append(address_hash)


def answer_as(outcome: ErrorCode | None) -> None:
    """Supabase Auth's answer to a sign-in."""
    if outcome is not None:
        raise PlatformError(outcome)


@dataclass
class Door:
    """A sign-in, whose passwords are wrong unless said otherwise."""

    per_minute: int = 5
    keys: tuple[SecretStr, ...] = (SECRET,)
    book: Book = field(default_factory=Book)
    seconds: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limits = SignInLimits(self.book, self.per_minute, self.keys, clock=lambda: self.seconds)

    async def tries(
        self, address: str, email: str = ANN, outcome: ErrorCode | None = ErrorCode.UNAUTHORIZED
    ) -> ErrorCode | None:
        """What a try is answered with; None where it signs in."""
        try:
            async with self.limits.sign_in(email, address):
                answer_as(outcome)
        except PlatformError as error:
            self.pauses += [] if error.retry_after is None else [error.retry_after]
            return error.code
        await self.limits.signed_in("ann", email, address)
        return None

    async def exhaust(self) -> None:
        """Strangers have used up their tries."""
        for n in range(self.per_minute):
            assert await self.tries(f"198.51.100.{n}") is ErrorCode.UNAUTHORIZED
        assert await self.tries("198.51.100.200") is ErrorCode.RATE_LIMITED


async def test_strangers_share_the_tries_of_an_account_however_many_they_are() -> None:
    door = Door()
    answers = [await door.tries(f"198.51.{n // 200}.{n % 200}") for n in range(120)]
    assert answers.count(ErrorCode.UNAUTHORIZED) == 5
    assert set(answers[5:]) == {ErrorCode.RATE_LIMITED}
    assert all(0 < pause <= 60 for pause in door.pauses)
    assert await door.tries("203.0.113.1", "ben@example.com") is ErrorCode.UNAUTHORIZED


async def test_many_at_once_are_no_more_than_the_limit() -> None:
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


async def test_an_address_that_signed_in_before_counts_for_itself() -> None:
    door = Door()
    assert await door.tries(HOME, outcome=None) is None
    await door.exhaust()
    assert await door.tries(HOME, outcome=None) is None
    assert [await door.tries(HOME) for _ in range(6)] == [ErrorCode.UNAUTHORIZED] * 5 + [ErrorCode.RATE_LIMITED]
    assert await door.tries("192.0.2.2", outcome=None) is ErrorCode.RATE_LIMITED


async def test_an_address_that_signs_in_otherwise_is_known_at_once() -> None:
    door = Door()
    await door.exhaust()
    assert await door.tries(HOME, outcome=None) is ErrorCode.RATE_LIMITED
    await door.limits.signed_in("ann", ANN, HOME)  # by a refresh token, for instance
    assert await door.tries(HOME, outcome=None) is None


async def test_a_network_of_ipv6_is_one_address() -> None:
    door = Door()
    await door.tries(MOBILE, outcome=None)
    await door.exhaust()
    assert await door.tries("2001:db8::ffff", outcome=None) is None
    assert await door.tries("2001:db8:0:1::1", outcome=None) is ErrorCode.RATE_LIMITED


async def test_strangers_may_try_again_with_time() -> None:
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
async def test_an_account_is_one_however_its_address_is_written(same: str) -> None:
    door = Door()
    await door.exhaust()
    assert await door.tries("203.0.113.9", same) is ErrorCode.RATE_LIMITED


def test_letters_are_compared_as_supabase_auth_does() -> None:
    assert account_name("İ@x.y") == account_name("I@X.Y") == "i@x.y"
    assert account_name("\u212a@x.y") == "k@x.y"


async def test_another_instance_knows_the_addresses_too() -> None:
    book = Book()
    await Door(book=book).tries(HOME, outcome=None)
    door = Door(book=book)
    await door.exhaust()
    assert await door.tries(HOME, outcome=None) is None


async def test_hashes_tell_no_address_and_outlive_a_rotation_of_the_key() -> None:
    book = Book()
    await Door(book=book, keys=(OLDER,)).tries(HOME, outcome=None)
    assert HOME not in book.hashes[0]
    assert len(book.hashes[0]) == 64
    stranger, door = Door(book=book, keys=(SECRET,)), Door(book=book, keys=(SECRET, OLDER))
    await stranger.exhaust()
    assert await stranger.tries(HOME, outcome=None) is ErrorCode.RATE_LIMITED
    await door.exhaust()
    assert await door.tries(HOME, outcome=None) is None


async def test_the_database_is_asked_once_however_many_try() -> None:
    door = Door()
    await door.exhaust()
    before = door.book.asked
    await asyncio.gather(*(door.tries(f"198.51.100.{n}") for n in range(200)))
    assert door.book.asked == before
    door.seconds += KNOWN_SECONDS + 1
    await asyncio.gather(*(door.tries(f"198.51.100.{n}") for n in range(200)))
    assert door.book.asked == before + 1


async def test_a_database_that_is_away_is_asked_again_and_lets_nobody_pass() -> None:
    door = Door()
    await door.tries(HOME, outcome=None)
    door.seconds += KNOWN_SECONDS + 1
    door.book.away = True
    for n in range(5):
        await door.tries(f"198.51.100.{n}")
    assert await door.tries(HOME, outcome=None) is ErrorCode.SUPABASE_UNAVAILABLE
    door.book.away = False
    assert await door.tries(HOME, outcome=None) is None


async def test_an_address_that_could_not_be_noted_is_noted_next_time() -> None:
    door = Door()
    door.book.away = True
    assert await door.tries(HOME, outcome=None) is None
    door.book.away = False
    assert await door.tries(HOME, outcome=None) is None
    assert len(door.book.hashes) == 1
    await door.tries(HOME, outcome=None)
    assert len(door.book.hashes) == 1


async def test_without_a_limit_nothing_is_counted_or_noted() -> None:
    door = Door(per_minute=0)
    assert {await door.tries(HOME) for _ in range(50)} == {ErrorCode.UNAUTHORIZED}
    assert await door.tries(HOME, outcome=None) is None
    assert (door.book.hashes, door.book.asked) == ([], 0)


def test_sign_ups_of_one_address_are_limited_beside_its_sign_ins() -> None:
    door = Door()
    for _ in range(5):
        door.limits.sign_up(ANN)
    with pytest.raises(PlatformError, match="rate_limited"):
        door.limits.sign_up("ANN@example.com")
    door.limits.sign_up("ben@example.com")


def test_what_is_given_back_is_never_more_than_was_there() -> None:
    buckets = Buckets(1, clock=lambda: 0.0)
    for _ in range(3):
        buckets.give_back("a")
    buckets.take("a")
    with pytest.raises(PlatformError):
        buckets.take("a")
