"""Users' reads of their own rows through PostgREST: pages by position, whole turns, exact money."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import jwt
import pytest
from pydantic import SecretStr

from server.adapters.supabase.accounts import SupabaseAccountStore
from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.credentials import SupabaseCredentials
from server.adapters.supabase.faults import SupabaseError
from server.adapters.supabase.probe import SupabaseProbe
from server.adapters.supabase.reads import SupabaseReads
from server.adapters.supabase.select import Select
from server.adapters.supabase.sessions import SupabaseSessionStore
from server.adapters.supabase.tokens import SupabaseTokenVerifier
from server.ports import ALL_SCOPES, NewApiKey, NewTurn, Principal, Standing, UsageSum
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


@pytest.fixture(params=["token", "no token"])
async def ann(client: SupabaseClient, request: pytest.FixtureRequest) -> Principal:
    """A user with an access token, and one without, as on an API key: both read the same."""
    signed_up = await sign_up(client)
    return signed_up if request.param == "token" else replace(signed_up, access_token=None)


@pytest.fixture
async def ben(client: SupabaseClient) -> Principal:
    """A user with an access token."""
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


async def test_a_search_reads_the_messages_under_row_level_security(
    client: SupabaseClient, reads: SupabaseReads, ann: Principal, ben: Principal
) -> None:
    """The index is asked for the user's id; which messages are read, the token decides."""
    await converse(client, ann.user_id, "Ann's tea", "milk", "tea again")
    await converse(client, ben.user_id, "Ben's tea")

    page = await reads.search(ann, "TE", 3, before=None, after=None)
    rest = await reads.search(ann, "TE", 3, before=page.data[-1].position, after=None)

    assert ([message.content for message in page.data], page.has_more) == (["tea again"] * 2 + ["Ann's tea"], True)
    assert ([message.content for message in rest.data], rest.has_more) == (["Ann's tea"], False)
    if ann.access_token is not None:
        with_the_token_of_another = replace(ann, access_token=ben.access_token)
        assert (await reads.search(with_the_token_of_another, "tea", 9, before=None, after=None)).data == ()


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
    cost, began = Decimal("0.12345678901234567890"), datetime.now(UTC).date()
    await converse(client, ann.user_id, "1", "2", cost=cost)
    days = await reads.usage_days(ann, began, datetime.now(UTC).date())

    assert await reads.usage_total(ann) == UsageSum(4, 14, 2 * cost)
    assert UsageSum(*(sum(getattr(day, name) for day in days) for name in ("messages", "tokens", "cost"))) == (
        UsageSum(4, 14, 2 * cost)
    )
    assert await reads.usage_days(ann, began - timedelta(days=9), began - timedelta(days=1)) == []


async def test_a_users_standing_can_be_read_before_the_budget_was_read_from_litellm(
    client: SupabaseClient, reads: SupabaseReads, ann: Principal
) -> None:
    await converse(client, ann.user_id, "1", cost=Decimal("0.25"))
    assert await reads.standing(ann) == Standing(None, Decimal("0.25"), None, None, None)


async def test_a_forged_token_is_unauthorized(reads: SupabaseReads, ben: Principal) -> None:
    forged = Principal(ben.user_id, ben.email, SecretStr(token_of(ben)[:-10] + "A" * 10), ben.expires_at)
    with pytest.raises(PlatformError) as refusal:
        await reads.profile(forged)
    assert refusal.value.code is ErrorCode.UNAUTHORIZED


NO_TOKEN = ("user_profiles", "turns", "messages", "ledger", "usage_metrics", "billing_accounts", "api_keys")


@pytest.mark.parametrize("table", NO_TOKEN)
async def test_a_user_without_a_token_reads_own_rows_only_whatever_is_asked(
    client: SupabaseClient, ben: Principal, table: str
) -> None:
    """The policies decide, not the filters of a query."""
    other = await sign_up(client)
    key = "id" if table == "user_profiles" else "user_id"
    for principal in (ben, other):
        await converse(client, principal.user_id, "hello", cost=Decimal("0.01"))
        credentials = SupabaseCredentials(client)
        new = NewApiKey(principal.user_id, "script", f"chat_{uuid.uuid4().hex[:12]}", "0" * 64, ALL_SCOPES, None)
        await credentials.create_key(new, 10)

    mine = await client.read_as_user(ben.user_id, Select(table, key).wire())
    theirs = await client.read_as_user(ben.user_id, Select(table, key, ((key, "eq", other.user_id),)).wire())

    assert mine
    assert {row[key] for row in mine} == {ben.user_id}
    assert theirs == []


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("user_profiles", "litellm_key"),
        ("turns", "run_id"),
        ("api_keys", "secret_hash"),
        ("tickets", "id"),
        ("sessions", "user_id"),
        ("known_addresses", "user_id"),
        ("sign_in_devices", "session_id"),
    ],
)
async def test_a_user_without_a_token_reads_no_hidden_column_or_table(
    client: SupabaseClient, ben: Principal, table: str, column: str
) -> None:
    await converse(client, ben.user_id, "hello")
    with pytest.raises((PlatformError, SupabaseError)):
        await client.read_as_user(ben.user_id, Select(table, column).wire())


@pytest.mark.parametrize(
    "query",
    [
        {"table": "messages where true; --", "columns": ["id"]},
        {"table": "messages", "columns": ["id from public.messages --"]},
        {"table": "messages", "columns": ["*"]},
        {"table": "messages", "columns": ["id"], "where": [["id", "= id or true --", "1"]]},
        {"table": "messages", "columns": ["id"], "where": [["id or true --", "eq", "1"]]},
        {"table": "messages", "columns": ["id"], "where": [["content", "eq", "' or '1' = '1"]]},
        {"table": "messages", "columns": ["id"], "order": [["id; drop table public.messages", False]]},
        {"table": "messages", "columns": ["id"], "limit": "0) or (true"},
    ],
)
async def test_a_query_cannot_smuggle_sql(client: SupabaseClient, ben: Principal, query: dict[str, Any]) -> None:
    await converse(client, ben.user_id, "hello")
    asked = {"where": [], "order": [], "limit": None, "offset": 0} | query
    with suppress(PlatformError, SupabaseError):
        assert await client.read_as_user(ben.user_id, asked) == []
    assert len(await client.read_as_user(ben.user_id, Select("messages", "id").wire())) == 2


async def test_a_read_as_one_user_leaves_nothing_of_that_user_to_the_next_request(
    client: SupabaseClient, reads: SupabaseReads, ben: Principal
) -> None:
    """The role and the claims end with the transaction, also on a connection that others use next."""
    await converse(client, ben.user_id, "hello")
    for _ in range(20):
        assert await client.read_as_user(ben.user_id, Select("messages", "id").wire())
        assert await SupabaseSessionStore(client).open_turns(ben.user_id) == (None, ())
        other = str(uuid.uuid4())
        assert await client.read_as_user(other, Select("messages", "id").wire()) == []


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
    ben: Principal,
    supabase_env: dict[str, str],
    ahead: int,
    lasts: int,
    meaning: ErrorCode | None,
) -> None:
    now = int(time.time())
    signed = _signed(supabase_env, ben, iat=now + ahead, exp=now + lasts)
    asked = (SupabaseTokenVerifier(client).verify(token_of(signed)), reads.profile(signed))
    for answer in asked:
        if meaning is None:
            await answer
            continue
        with pytest.raises(PlatformError) as refusal:
            await answer
        assert refusal.value.code is meaning
        assert refusal.value.retryable is (meaning is ErrorCode.SUPABASE_UNAVAILABLE)
