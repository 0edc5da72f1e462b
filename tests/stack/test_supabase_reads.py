"""Users' reads of their own rows through PostgREST: pages by position, whole turns, exact money."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import jwt
import pytest
from pydantic import SecretStr

from server.adapters.supabase.accounts import SupabaseAccountStore
from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.probe import SupabaseProbe
from server.adapters.supabase.reads import SupabaseReads
from server.adapters.supabase.sessions import SupabaseSessionStore
from server.adapters.supabase.tokens import SupabaseTokenVerifier
from server.ports import NewTurn, Principal, Standing, UsageDay, UsageSum
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.limits import Allowance
from server.protocol.shapes import AgentStatus, TurnStatus
from tests.stack.supabase_users import client_of, converse, sign_up, token_of


@pytest.fixture
async def client(supabase_env: dict[str, str]) -> AsyncIterator[SupabaseClient]:
    client = client_of(supabase_env)
    yield client
    await client.aclose()


@pytest.fixture
async def ann(client: SupabaseClient) -> Principal:
    return await sign_up(client)


@pytest.fixture
def reads(client: SupabaseClient) -> SupabaseReads:
    return SupabaseReads(client)


async def test_a_user_without_a_profile_has_nothing_to_read(reads: SupabaseReads, ann: Principal) -> None:
    today = datetime.now(UTC).date()
    assert await reads.profile(ann) is None
    assert await reads.usage_total(ann) == UsageSum(0, 0, Decimal(0))
    assert await reads.usage_days(ann, today, today) == []
    assert await reads.usage_models(ann, today, today) == []
    assert await reads.standing(ann) is None
    page = await reads.history(ann, 10, before=None, after=None)
    assert (page.data, page.has_more) == ((), False)


async def test_the_profile_is_the_users_own(client: SupabaseClient, reads: SupabaseReads, ann: Principal) -> None:
    account = await SupabaseAccountStore(client).ensure(ann.user_id, ann.email, "Ann")

    profile = await reads.profile(ann)

    assert profile
    assert profile.user == account.user
    assert profile.user.agent_status is AgentStatus.PROVISIONING
    assert (profile.agent_id, profile.status_reason, profile.updated_at) == (None, None, account.updated_at)


async def test_history_pages_backwards_without_gaps_or_repeats(
    client: SupabaseClient, reads: SupabaseReads, ann: Principal
) -> None:
    await converse(client, ann.user_id, "1", "2", "3")

    pages, before = [], None
    while True:
        page = await reads.history(ann, 4, before=before, after=None)
        pages.append([message.content for message in page.data])
        if not page.has_more:
            break
        before = page.data[-1].position

    assert pages == [["3", "3", "2", "2"], ["1", "1"]]


async def test_history_pages_forwards_newest_first(
    client: SupabaseClient, reads: SupabaseReads, ann: Principal
) -> None:
    turns = await converse(client, ann.user_id, "1", "2", "3")
    position = turns[0].user_message.position

    page = await reads.history(ann, 2, before=None, after=position)
    rest = await reads.history(ann, 9, before=None, after=page.data[0].position)

    assert ([m.position for m in page.data], page.has_more) == ([position + 2, position + 1], True)
    assert ([m.position for m in rest.data], rest.has_more) == ([position + 5, position + 4, position + 3], False)


async def test_a_turn_reads_the_same_as_the_store_gives_it(
    client: SupabaseClient, reads: SupabaseReads, ann: Principal
) -> None:
    [done] = await converse(client, ann.user_id, "hello", cost=Decimal("0.00000012345678901234"))
    store = SupabaseSessionStore(client)
    stored = []
    for _ in range(3):
        new = NewTurn(ann.user_id, uuid.uuid4().hex, "more", "hash", "enqueue")
        stored.append((await store.accept(new, "tests", start=True, allowance=Allowance())).turn)

    assert await reads.turn(ann, done.id) == done
    assert [await reads.turn(ann, turn.id) for turn in stored] == stored
    assert [turn.status for turn in stored] == [TurnStatus.RUNNING, TurnStatus.QUEUED, TurnStatus.QUEUED]


@pytest.mark.parametrize("turn_id", ["nonsense", "1);drop table turns", "00000000-0000-4000-8000-000000000000"])
async def test_an_unknown_turn_is_none(reads: SupabaseReads, ann: Principal, turn_id: str) -> None:
    assert await reads.turn(ann, turn_id) is None


async def test_another_users_turn_is_none(client: SupabaseClient, reads: SupabaseReads, ann: Principal) -> None:
    [theirs] = await converse(client, (await sign_up(client)).user_id, "secret")
    assert await reads.turn(ann, theirs.id) is None


async def test_usage_keeps_every_digit(client: SupabaseClient, reads: SupabaseReads, ann: Principal) -> None:
    cost = Decimal("0.12345678901234567890")
    await converse(client, ann.user_id, "1", "2", cost=cost)
    today = datetime.now(UTC).date()

    assert await reads.usage_total(ann) == UsageSum(4, 14, 2 * cost)
    assert await reads.usage_days(ann, today, today) == [UsageDay(today, 4, 14, 2 * cost)]
    assert await reads.usage_days(ann, today - timedelta(days=9), today - timedelta(days=1)) == []


async def test_a_users_standing_can_be_read_before_the_budget_was_read_from_litellm(
    client: SupabaseClient, reads: SupabaseReads, ann: Principal
) -> None:
    await converse(client, ann.user_id, "1", cost=Decimal("0.25"))
    assert await reads.standing(ann) == Standing(None, Decimal("0.25"), None, None, None)


async def test_a_forged_token_is_unauthorized(reads: SupabaseReads, ann: Principal) -> None:
    forged = Principal(ann.user_id, ann.email, SecretStr(token_of(ann)[:-10] + "A" * 10), ann.expires_at)
    with pytest.raises(PlatformError) as refusal:
        await reads.profile(forged)
    assert refusal.value.code is ErrorCode.UNAUTHORIZED


async def test_the_probe_answers(client: SupabaseClient) -> None:
    await SupabaseProbe(client).ping()


def _signed(env: dict[str, str], principal: Principal, **changes: object) -> Principal:
    """The user's token with other claims, signed with the project's own key."""
    document = json.loads(Path(env["SIGNING_KEY_FILE"]).read_text("utf-8"))
    claims = jwt.decode(token_of(principal), options={"verify_signature": False}) | changes
    token = jwt.encode(claims, jwt.PyJWK(document).key, "ES256", headers={"kid": document["kid"]})
    return replace(principal, access_token=SecretStr(token))


@pytest.mark.parametrize(
    ("ahead", "lasts", "meaning"),
    [
        (0, 3600, None),
        (20, 3600, None),
        (60, 3600, ErrorCode.SUPABASE_UNAVAILABLE),
        (86_400, 2 * 86_400, ErrorCode.SUPABASE_UNAVAILABLE),
        (-7200, -3600, ErrorCode.TOKEN_EXPIRED),
    ],
)
async def test_a_token_from_another_time_is_treated_alike_at_sign_in_and_in_reads(
    client: SupabaseClient,
    reads: SupabaseReads,
    ann: Principal,
    supabase_env: dict[str, str],
    ahead: int,
    lasts: int,
    meaning: ErrorCode | None,
) -> None:
    now = int(time.time())
    signed = _signed(supabase_env, ann, iat=now + ahead, exp=now + lasts)
    asked = (SupabaseTokenVerifier(client).verify(token_of(signed)), reads.profile(signed))
    for answer in asked:
        if meaning is None:
            await answer
            continue
        with pytest.raises(PlatformError) as refusal:
            await answer
        assert refusal.value.code is meaning
        assert refusal.value.retryable is (meaning is ErrorCode.SUPABASE_UNAVAILABLE)
