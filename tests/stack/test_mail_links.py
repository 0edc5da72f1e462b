"""The links and codes in Supabase's mails, in a real browser: on the server's own page and in the console."""

import re
import uuid
from collections.abc import AsyncIterator

import aiohttp
import pytest
from playwright.async_api import Page, expect

from tests.stack.mail_visitor import NEW, PASSWORD, Visitor


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
    await visitor.recovers()
    await visitor.open(visitor.mail().link)
    await visitor.sees("Set a new password")
    await visitor.sets_password()
    await visitor.sees("Your password is set", "signed out everywhere else")

    assert (await visitor.login(), await visitor.login(NEW)) == (401, 200)
    assert (await visitor.post("refresh", refresh_token=other_device["refresh_token"]))[0] == 401


@pytest.mark.parametrize("link", ["mail", "token_hash"])
async def test_a_link_signs_in_where_the_console_asked_for_it(visitor: Visitor, link: str) -> None:
    await visitor.register()
    await visitor.awaits("signup")
    if link == "mail":
        await visitor.page.goto(visitor.mail().link or "")
    else:
        await visitor.page.goto(f"{visitor.url}/auth/callback#token_hash={visitor.token_hash()}&type=signup")
        await visitor.page.get_by_role("button", name="Continue").click()
    await visitor.page.wait_for_url(re.compile(f"^{re.escape(visitor.url)}/(#.*)?$"))
    assert await visitor.signed_in() == visitor.email
    assert await visitor.page.evaluate("localStorage.getItem('console.awaited')") is None
    assert visitor.sessions() == 1


async def test_a_link_that_cannot_sign_in_where_the_storage_is_full_leaves_nothing_open(visitor: Visitor) -> None:
    await visitor.register()
    await visitor.awaits("signup")
    await visitor.page.add_init_script("Storage.prototype.setItem = () => { throw new DOMException('full') }")
    await visitor.open(visitor.mail().link)
    await visitor.sees("Done", "Your e-mail address is confirmed.")
    await expect(visitor.page.get_by_role("link", name="Sign in here")).to_be_visible()
    assert (await visitor.signed_in(), visitor.sessions()) == (None, 0)


async def test_a_password_set_where_the_console_asked_for_it_signs_in(visitor: Visitor) -> None:
    await visitor.signed_up()
    await visitor.recovers()
    await visitor.awaits("recovery")
    await visitor.open(visitor.mail().link)
    await visitor.sets_password()
    await visitor.page.wait_for_url(re.compile(f"^{re.escape(visitor.url)}/(#.*)?$"))
    assert await visitor.signed_in() == visitor.email
    assert await visitor.login(NEW) == 200


@pytest.mark.parametrize("awaited", ["another address", "another purpose", "nothing", "a mail long ago"])
async def test_a_link_that_somebody_else_sends_signs_nobody_in(visitor: Visitor, awaited: str) -> None:
    """Else a page that its reader takes for their own account would be the sender's."""
    await visitor.register()
    match awaited:
        case "another address":
            await visitor.awaits("signup", f"other-{visitor.email}")
        case "another purpose":
            await visitor.awaits("recovery")
        case "a mail long ago":
            await visitor.awaits("signup", hours_ago=25)
    await visitor.open(visitor.mail().link)
    await visitor.sees("Done", "Your e-mail address is confirmed.")
    assert await visitor.signed_in() is None
    assert visitor.sessions() == 0


async def test_a_link_does_not_replace_the_user_who_is_signed_in(visitor: Visitor) -> None:
    await visitor.register()
    await visitor.awaits("signup")
    await visitor.page.evaluate("""localStorage.setItem('chat.session', '{"user": {"email": "ada@example.com"}}')""")
    await visitor.open(visitor.mail().link)
    await visitor.sees("Done")
    assert await visitor.signed_in() == "ada@example.com"
    assert visitor.sessions() == 0


async def test_after_the_link_the_console_knows_the_address(visitor: Visitor) -> None:
    await visitor.register()
    await visitor.open(visitor.mail().link)
    await visitor.page.get_by_role("link", name="Sign in here").click()
    await expect(visitor.page.get_by_label("E-mail")).to_have_value(visitor.email)


async def test_the_page_speaks_russian_to_those_who_do(visitor: Visitor) -> None:
    await visitor.page.add_init_script("Object.defineProperty(navigator, 'languages', {get: () => ['ru-RU', 'en']})")
    await visitor.signed_up()
    await visitor.recovers()
    await visitor.open(visitor.mail().link)
    await visitor.sees("Новый пароль", "Выберите пароль")
    await expect(visitor.page.get_by_label("Новый пароль", exact=True)).to_be_focused()
    await visitor.page.get_by_label("Новый пароль", exact=True).fill("onlyletters")
    await visitor.page.get_by_role("button", name="Задать пароль").click()
    await expect(visitor.page.get_by_role("alert")).to_contain_text("Выберите пароль надёжнее")


async def test_secrets_leave_the_address_bar_the_history_and_every_request(visitor: Visitor) -> None:
    await visitor.signed_up()
    await visitor.recovers()
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
    await visitor.recovers()
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
    await visitor.recovers()
    link = visitor.mail().link
    await visitor.open(link)
    await visitor.sets_password()
    await visitor.sees("Your password is set")
    await visitor.page.goto("about:blank")
    await visitor.open(link)
    await visitor.sees("This link no longer works", "Ask for a new link")
    async with visitor.mailed():
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
    async with visitor.mailed():
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
    await visitor.recovers()
    await visitor.open(visitor.mail().link)
    await visitor.page.context.set_offline(True)
    await visitor.sets_password()
    await expect(visitor.page.get_by_role("alert")).to_contain_text("cannot be reached")
    await visitor.page.context.set_offline(False)
    await visitor.sets_password()
    await visitor.sees("Your password is set")


async def test_a_sign_up_in_the_console_is_confirmed_by_the_mails_code(visitor: Visitor) -> None:
    page = visitor.page
    await page.goto(f"{visitor.url}/#/welcome/sign-up")
    await page.get_by_label("E-mail").fill(visitor.email)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Sign up").click()
    await expect(page.get_by_role("heading", name="Look into your mail")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("button", name="Send it again")).to_be_disabled()
    await page.get_by_label("Code from the mail").fill("000000")
    await page.get_by_role("button", name="Confirm").click()
    await expect(page.get_by_role("alert")).to_contain_text("wrong, was used before or is too old")
    await page.get_by_label("Code from the mail").fill(visitor.mail().code or "")
    await page.get_by_role("button", name="Confirm").click()
    await expect(page.get_by_role("navigation", name="Views")).to_be_visible()
    assert await visitor.signed_in() == visitor.email


async def test_who_signs_in_unconfirmed_is_asked_for_the_code(visitor: Visitor) -> None:
    page = visitor.page
    await visitor.register()
    await page.goto(f"{visitor.url}/#/account/data")
    await page.get_by_label("E-mail").fill(visitor.email)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_label("Code from the mail").fill(visitor.mail().code or "")
    await page.get_by_role("button", name="Confirm").click()
    await expect(page.get_by_role("heading", name="Export")).to_be_visible()


async def test_a_forgotten_password_is_replaced_in_the_console_by_the_mails_code(visitor: Visitor) -> None:
    page = visitor.page
    await visitor.signed_up()
    await page.goto(f"{visitor.url}/#/welcome/recover")
    await page.get_by_label("E-mail").fill(visitor.email)
    async with visitor.mailed():
        await page.get_by_role("button", name="Send the code").click()
    await page.get_by_label("New password").fill("onlyletters")
    await page.get_by_label("Code from the mail").fill(visitor.mail().code or "")
    await page.get_by_role("button", name="Set the password").click()
    await expect(page.get_by_role("alert")).to_contain_text("It needs letters and digits.")
    await expect(page.get_by_label("Code from the mail")).to_have_count(0)
    await page.get_by_label("New password").fill(NEW)
    await page.get_by_role("button", name="Set the password").click()
    await expect(page.get_by_role("navigation", name="Views")).to_be_visible()
    assert await visitor.login(NEW) == 200


async def test_a_new_address_is_confirmed_in_the_console_by_the_mails_code(visitor: Visitor) -> None:
    page, new = visitor.page, f"new-{visitor.email}"
    await visitor.signed_up()
    await page.goto(f"{visitor.url}/#/account")
    await page.get_by_label("E-mail").fill(visitor.email)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_label("New e-mail address").fill(new)
    await page.get_by_label("Current password").fill(PASSWORD)
    await page.get_by_role("button", name="Change the address").click()
    await expect(page.get_by_label("Code from the mail")).to_be_focused()
    await page.get_by_label("Code from the mail").fill(visitor.mail().code or "")
    await page.get_by_role("button", name="Confirm").click()
    await expect(page.get_by_text(f"You sign in as {new}.")).to_be_visible()
    assert await visitor.login(email=new) == 200
