"""Floods of messages and of passwords, and the limits that refuse them."""

import asyncio
import time
import uuid
from collections import Counter
from decimal import Decimal
from typing import Any

import aiohttp
import psycopg

from tests.conftest import NewServer
from tests.stack.chat_client import TIMEOUT, ChatUser, register

LONG = "x" * 32_000
CLIENTS = 6


async def flood(user: ChatUser, messages: int, **fields: Any) -> tuple[Counter[tuple[int, bool]], float]:
    """Send this many long messages, six at a time. Returns the number of answers by (status, whether they have a turn),
    and the seconds it took."""
    answers: Counter[tuple[int, bool]] = Counter()
    left = iter(range(messages))

    async def client() -> None:
        for _ in left:
            body = {"content": LONG, **fields}
            status, answer = await user.call("POST", "/chat/message", body, Prefer="respond-async")
            answers[status, status == 202 or "turn" in answer] += 1

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answers, time.monotonic() - began


async def stored(user: ChatUser) -> int:
    """The number of stored messages of the user."""
    page = await user.get("/chat/history?limit=100")
    assert not page["has_more"]
    return sum(message["role"] == "user" for message in page["data"])


async def over_budget(user: ChatUser) -> None:
    """Return when the server knows both the limit, which it reads from LiteLLM, and the cost of what was said."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            budget = (await user.get("/user/usage"))["budget"] or {"limit": None}
            if budget["limit"] is not None and Decimal(budget["spent"]) >= Decimal(budget["limit"]):
                return
            await asyncio.sleep(0.5)


async def known_at_home(env: dict[str, str], email: str) -> None:
    """Return when the address of this account's sign-in is stored: the sign-in does not wait for a slow database."""
    query = "select from public.known_addresses a join auth.users u on u.id = a.user_id where u.email = %s"
    async with (
        asyncio.timeout(TIMEOUT),
        await psycopg.AsyncConnection.connect(env["SUPABASE_DB_URL"], autocommit=True) as database,
    ):
        while not (await database.execute(query, [email])).rowcount:
            await asyncio.sleep(0.1)


async def test_over_budget_a_flood_of_long_messages_leaves_twenty(
    new_server: NewServer, http: aiohttp.ClientSession
) -> None:
    server = await new_server(DEFAULT_BUDGET_USD="0.000001", BUDGET_PERIOD="30d")
    user = await register(http, server.url)
    await user.say("ECHO spend it all")
    await over_budget(user)

    answers, _ = await flood(user, 120)

    assert answers == {(402, True): 20, (402, False): 100}
    assert await stored(user) == 1 + 20


async def test_a_flood_of_interrupts_is_held_to_the_rate(new_server: NewServer, http: aiohttp.ClientSession) -> None:
    server = await new_server(MESSAGES_PER_MINUTE="6")
    user = await register(http, server.url)

    answers, seconds = await flood(user, 60, on_busy="interrupt")

    taken = answers.pop((202, True))
    assert set(answers) <= {(429, False)}
    assert 6 <= taken <= 7 + seconds / 10
    assert await stored(user) == taken


async def test_an_owner_signs_in_while_a_thousand_addresses_try_the_password(
    new_server: NewServer, http: aiohttp.ClientSession, server_env: dict[str, str]
) -> None:
    server = await new_server(SIGN_INS_PER_MINUTE="10", CLIENT_ADDRESS_HEADER="X-Real-IP")
    email, password = f"{uuid.uuid4().hex[:12]}@example.com", "Passw0rd-2026"
    at_home = "192.0.2.1"

    async def ask(path: str, address: str, **body: str) -> int:
        headers = {"X-Real-IP": address}
        async with http.post(f"{server.url}/api/v1/auth/{path}", json=body, headers=headers) as response:
            if response.status == 429:
                assert 1 <= int(response.headers["Retry-After"]) <= 60
            return response.status

    assert await ask("register", at_home, email=email, password=password) == 201
    await known_at_home(server_env, email)
    began = time.monotonic()
    strangers = [
        asyncio.create_task(ask("login", f"198.51.{n // 250}.{n % 250}", email=email, password=f"guess-{n}"))
        for n in range(1000)
    ]
    assert await ask("login", at_home, email=email, password=password) == 200
    answers = Counter(await asyncio.gather(*strangers))
    seconds = time.monotonic() - began
    assert await ask("login", at_home, email=email, password=password) == 200

    assert set(answers) == {401, 429}
    # The owner's own sign-in uses one of their tries until it is answered.
    assert 9 <= answers[401] <= 11 + seconds / 6
