"""Somebody with a mailbox and a browser, for tests of the mails' links and codes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import aiohttp
import psycopg
from playwright.async_api import Page, expect

from server.stack.mails import Mail, read_mails
from tests.stack.chat_client import TIMEOUT

PASSWORD, NEW = "Passw0rd-2026", "Another-passw0rd-2026"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody with a mailbox, a browser, and an app of the API."""

    page: Page
    http: aiohttp.ClientSession
    url: str
    project: dict[str, str]
    email: str
    requested: list[str] = field(default_factory=list)
    """The addresses that the browser asked for."""
    complaints: list[str] = field(default_factory=list)
    """Errors in the browser's console: a violated Content-Security-Policy is one."""

    async def post(self, path: str, bearer: str | None = None, **body: Any) -> tuple[int, Any]:
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        async with self.http.post(f"{self.url}/api/v1/auth/{path}", json=body, headers=headers) as response:
            return response.status, await response.json() if response.content_length else None

    async def register(self) -> None:
        """Register; the address is not confirmed yet."""
        status, body = await self.post("register", email=self.email, password=PASSWORD)
        assert (status, body["status"]) == (202, "confirmation_required")

    async def signed_up(self) -> dict[str, Any]:
        """Register and confirm the address by the mail's code. The tokens."""
        await self.register()
        status, tokens = await self.post("verify", email=self.email, token=self.mail().code, type="signup")
        assert status == 200
        return dict(tokens)

    async def login(self, password: str = PASSWORD, email: str | None = None) -> int:
        return (await self.post("login", email=email or self.email, password=password))[0]

    async def recovers(self) -> None:
        """Ask for a mail to set another password."""
        async with self.mailed():
            assert (await self.post("recover", email=self.email))[0] == 202

    @asynccontextmanager
    async def mailed(self) -> AsyncIterator[None]:
        """Returns when the mail that is asked for in the block is there: the server's answer does not wait for it."""
        before = self.mails()
        yield
        async with asyncio.timeout(TIMEOUT):
            while self.mails() == before:
                await asyncio.sleep(0.05)

    def mail(self, to: str | None = None) -> Mail:
        """The newest mail."""
        return read_mails(Path(self.project["MAIL_FILE"]), to or self.email)[-1]

    async def awaits(self, purpose: str, email: str | None = None, hours_ago: int = 0) -> None:
        """Note in the browser what its console does when it has asked for a mail."""
        await self.page.goto(f"{self.url}/health")
        await self.page.evaluate(
            """([email, purpose, hours]) => localStorage.setItem(
                "console.awaited", JSON.stringify({email, purpose, at: Date.now() - hours * 3600_000}))""",
            [email or self.email, purpose, hours_ago],
        )

    async def signed_in(self) -> str | None:
        """The address of the user of this browser's console."""
        script = "JSON.parse(localStorage.getItem('chat.session') ?? 'null')?.user.email ?? null"
        return cast("str | None", await self.page.evaluate(script))

    def mails(self) -> int:
        return len(read_mails(Path(self.project["MAIL_FILE"]), self.email))

    def token_hash(self) -> str:
        """That of the newest mail, as a mail template names it."""
        return parse_qs(urlsplit(self.mail().link or "").query)["token"][0]

    async def open(self, link: str | None) -> None:
        """Open a link. However it ends, the address bar names no secret, and neither does the history."""
        await self.page.goto(link or "")
        await self.page.wait_for_url(f"{self.url}/auth/callback")

    async def sees(self, title: str, text: str = "") -> None:
        await expect(self.page.get_by_role("heading", level=1)).to_have_text(title)
        await expect(self.page.get_by_role("status")).to_contain_text(text)

    async def sets_password(self, password: str = NEW) -> None:
        await self.page.get_by_label("New password", exact=True).fill(password)
        await self.page.get_by_role("button", name="Set the password").click()

    async def asks_for_a_link(self, purpose: str) -> None:
        await self.page.get_by_label("E-mail address").fill(self.email)
        await self.page.get_by_label(purpose).check()
        await self.page.get_by_role("button", name="Send the link").click()
        await self.sees("Look into your mail")

    def sql(self, statement: str, *values: object) -> Any:
        with psycopg.connect(self.project["SUPABASE_DB_URL"], autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchone() if cursor.description else None

    def sessions(self) -> int:
        """The user's sign-ins at Auth."""
        found = self.sql(
            "select count(*) from auth.sessions s join auth.users u on u.id = s.user_id where u.email = %s", self.email
        )
        return int(found[0])
