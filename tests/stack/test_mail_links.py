"""The links in Supabase's mails, opened in a real browser on the server's own page, to the last click."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import psycopg
import pytest
from playwright.async_api import Page, expect

from server.stack.mails import Mail, read_mails

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

    def mail(self, to: str | None = None) -> Mail:
        """The newest mail."""
        return read_mails(Path(self.project["MAIL_FILE"]), to or self.email)[-1]

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


@pytest.fixture
async def visitor(
    page: Page, http: aiohttp.ClientSession, confirming: dict[str, str], confirming_server: str
) -> AsyncIterator[Visitor]:
    visitor = Visitor(page, http, confirming_server, confirming, f"{uuid.uuid4().hex[:12]}@example.com")
    page.on("request", lambda request: visitor.requested.append(request.url))
    page.on("console", lambda line: visitor.complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
    yield visitor
    assert not [line for line in visitor.complaints if "Failed to load resource" not in line]


async def test_a_confirmation_link_confirms_and_leaves_nobody_signed_in(visitor: Visitor) -> None:
    await visitor.register()
    assert await visitor.login() == 401
    await visitor.open(visitor.mail().link)
    await visitor.sees("Done", "Your e-mail address is confirmed.")
    assert visitor.sessions() == 0
    assert await visitor.login() == 200


async def test_a_forgotten_password_is_set_by_the_mails_link(visitor: Visitor) -> None:
    other_device = await visitor.signed_up()
    assert (await visitor.post("recover", email=visitor.email))[0] == 202
    await visitor.open(visitor.mail().link)
    await visitor.sees("Set a new password")
    await visitor.sets_password()
    await visitor.sees("Your password is set", "signed out everywhere else")

    assert (await visitor.login(), await visitor.login(NEW)) == (401, 200)
    assert (await visitor.post("refresh", refresh_token=other_device["refresh_token"]))[0] == 401


async def test_secrets_leave_the_address_bar_the_history_and_every_request(visitor: Visitor) -> None:
    await visitor.signed_up()
    await visitor.post("recover", email=visitor.email)
    await visitor.page.goto(f"{visitor.url}/")
    await visitor.open(visitor.mail().link)
    await visitor.sees("Set a new password")
    own = [address for address in visitor.requested if address.startswith(visitor.url)]
    assert not [address for address in own if "token" in address.partition("#")[0]]
    await visitor.page.go_back()
    await visitor.page.go_forward()
    await visitor.sees("Your account", "There is no link here.")
    assert await visitor.page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


async def test_a_password_that_auth_refuses_can_be_replaced_on_the_page(visitor: Visitor) -> None:
    await visitor.signed_up()
    await visitor.post("recover", email=visitor.email)
    await visitor.open(f"{visitor.url}/auth/callback#token_hash={visitor.token_hash()}&type=recovery")
    await visitor.sets_password("onlyletters")
    await expect(visitor.page.get_by_role("alert")).to_contain_text("Password should contain")
    await visitor.sets_password()
    await visitor.sees("Your password is set")
    assert await visitor.login(NEW) == 200


@pytest.mark.parametrize("separator", ["#", "?"])
async def test_a_template_with_a_token_hash_uses_nothing_up_before_the_click(visitor: Visitor, separator: str) -> None:
    """Mail programs open links to examine them."""
    await visitor.register()
    link = f"{visitor.url}/auth/callback{separator}token_hash={visitor.token_hash()}&type=signup"
    for _ in range(2):
        await visitor.page.goto("about:blank")
        await visitor.open(link)
        await visitor.sees("Confirm your e-mail address")
    await visitor.page.get_by_role("button", name="Continue").click()
    await visitor.sees("Done")
    assert visitor.sessions() == 0
    assert await visitor.login() == 200


async def test_a_used_link_offers_another_one_that_works(visitor: Visitor) -> None:
    await visitor.signed_up()
    await visitor.post("recover", email=visitor.email)
    link = visitor.mail().link
    await visitor.open(link)
    await visitor.sets_password()
    await visitor.sees("Your password is set")
    await visitor.page.goto("about:blank")
    await visitor.open(link)
    await visitor.sees("This link no longer works", "Ask for a new link")
    await visitor.asks_for_a_link("set a new password")
    await visitor.open(visitor.mail().link)
    await visitor.sets_password(PASSWORD)
    await visitor.sees("Your password is set")
    assert await visitor.login() == 200


async def test_a_link_that_is_too_old_says_so(visitor: Visitor) -> None:
    await visitor.register()
    link = visitor.mail().link
    visitor.sql(
        "update auth.users set confirmation_sent_at = confirmation_sent_at - interval '8 days' where email = %s",
        visitor.email,
    )
    await visitor.open(link)
    await visitor.sees("This link no longer works", "too old")
    await visitor.asks_for_a_link("confirm a new account")


async def test_a_used_token_hash_says_so(visitor: Visitor) -> None:
    await visitor.register()
    link = f"{visitor.url}/auth/callback#token_hash={visitor.token_hash()}&type=signup"
    await visitor.open(visitor.mail().link)
    await visitor.sees("Done")
    await visitor.page.goto("about:blank")
    await visitor.open(link)
    await visitor.page.get_by_role("button", name="Continue").click()
    await visitor.sees("This link no longer works")


async def test_a_new_address_is_confirmed_by_its_link(visitor: Visitor) -> None:
    tokens = await visitor.signed_up()
    new = f"new-{visitor.email}"
    status, body = await visitor.post("email", tokens["access_token"], email=new, current_password=PASSWORD)
    assert (status, body["status"]) == (202, "confirmation_required")
    await visitor.open(visitor.mail().link)  # Supabase Lite asks at the old address alone
    await visitor.sees("Done", "Your new e-mail address is confirmed.")
    assert await visitor.login(email=new) == 200
    profile = visitor.sql("select email from public.user_profiles where id = %s", tokens["user"]["id"])
    assert profile == (new,)


async def test_a_link_of_another_apps_sign_in_leads_back_to_the_app_or_to_a_link_of_our_own(visitor: Visitor) -> None:
    await visitor.signed_up()
    await visitor.open(f"{visitor.url}/auth/callback?code=0a1b2c")
    await visitor.sees("Go back to the app", "only in the app and the browser")
    await visitor.asks_for_a_link("set a new password")
    assert visitor.mail().kind == "recovery"


@pytest.mark.parametrize(
    "address",
    [
        "#error=access_denied&error_description=Call+this+number",
        "#message=Call+this+number",
        "?error_description=Call+this+number&error_code=x",
        "#type=<img src=x onerror=alert(1)>&token_hash=x",
    ],
)
async def test_no_text_of_a_link_is_shown(visitor: Visitor, address: str) -> None:
    await visitor.open(f"{visitor.url}/auth/callback{address}")
    shown = await visitor.page.inner_text("body")
    assert "Call this number" not in shown
    assert "onerror" not in shown


async def test_asking_for_a_link_looks_the_same_for_an_unknown_address(visitor: Visitor) -> None:
    await visitor.open(f"{visitor.url}/auth/callback")
    await visitor.asks_for_a_link("set a new password")
    assert visitor.mails() == 0


async def test_without_a_connection_the_page_keeps_the_password_form(visitor: Visitor) -> None:
    await visitor.signed_up()
    await visitor.post("recover", email=visitor.email)
    await visitor.open(visitor.mail().link)
    await visitor.page.context.set_offline(True)
    await visitor.sets_password()
    await expect(visitor.page.get_by_role("alert")).to_contain_text("cannot be reached")
    await visitor.page.context.set_offline(False)
    await visitor.sets_password()
    await visitor.sees("Your password is set")
