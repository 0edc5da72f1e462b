"""Sign-in as in most apps: with supabase-js, in a real browser, from an app of another origin."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page

from server.stack.mails import mail_file
from tests.browser.packages import supabase_js
from tests.browser.site import serve_site
from tests.stack.chat_client import TIMEOUT
from tests.stack.running_stack import RunningStack
from tests.stack.team_app import PASSWORD, TeamApp, fresh_address


@pytest.fixture(scope="module")
async def origin(stack: RunningStack) -> AsyncIterator[str]:
    """The app's origin: `http://localhost:<port>`, with supabase-js on every page."""
    async with serve_site({"supabase.js": await supabase_js(stack.data_dir)}) as address:
        yield address


@pytest.fixture
async def app(stack: RunningStack, page: Page, origin: str) -> TeamApp:
    """The app on the stack's own Supabase, which does not require confirmed addresses."""
    app = TeamApp(page, origin, stack.env, stack.url, mail_file(stack.data_dir))
    await app.open()
    return app


async def test_signing_up_in_and_out_and_refreshing_work_in_a_browser(app: TeamApp) -> None:
    email = fresh_address()

    signed_up = await app.sign_up(email)
    assert signed_up["error"] is None
    me = await app.ask("/auth/me")
    assert (me["status"], me["body"]["email"]) == (200, email)

    refreshed = await app.run("return client.auth.refreshSession()")
    assert refreshed["error"] is None
    assert (await app.ask("/auth/me"))["status"] == 200
    assert (await app.run("return client.auth.signOut()"))["error"] is None
    assert await app.session() is None

    signed_in = await app.run("return client.auth.signInWithPassword(x)", {"email": email, "password": PASSWORD})
    assert signed_in["error"] is None
    assert (await app.ask("/auth/me"))["body"]["id"] == me["body"]["id"]


async def test_sign_out_of_supabase_js_ends_the_sockets_and_tokens_of_that_browser(app: TeamApp) -> None:
    await app.sign_up(fresh_address())
    token = (await app.session())["access_token"]
    url = f"{app.api.replace('http', 'ws')}/api/v1/chat/stream"
    opened = await app.run(
        """
        window.socket = new WebSocket(x.url, ["chat.v1", "bearer." + x.token]);
        window.ended = new Promise(resolve => { socket.onclose = ({ code, reason }) => resolve({ code, reason }); });
        return new Promise(resolve => { socket.onmessage = ({ data }) => resolve(JSON.parse(data).type); });
        """,
        {"url": url, "token": token},
    )
    assert opened == "ready"

    assert (await app.run("return client.auth.signOut()"))["error"] is None

    assert await app.run("return ended") == {"code": 4502, "reason": "signed_out"}
    await app.page.wait_for_function(
        "async ([url, token]) => (await api(url, token)).status === 401", arg=[f"{app.api}/api/v1/auth/me", token]
    )


async def test_a_browser_reads_why_signing_in_was_refused(app: TeamApp) -> None:
    refused = await app.run(
        """
        const { error } = await client.auth.signInWithPassword(x);
        return [error.name, error.code, error.status];
        """,
        {"email": fresh_address(), "password": PASSWORD},
    )
    assert refused == ["AuthApiError", "invalid_credentials", 400]


async def test_a_browser_verifies_a_token_itself_by_the_published_keys(app: TeamApp) -> None:
    await app.sign_up(fresh_address(), data={"name": "Ada"})

    claims = await app.run("return client.auth.getClaims()")

    assert claims["error"] is None
    assert claims["data"]["header"]["alg"] == "ES256"
    assert claims["data"]["claims"]["iss"] == f"{app.env['SUPABASE_URL']}/auth/v1"
    assert claims["data"]["claims"]["user_metadata"]["name"] == "Ada"


async def test_a_browser_changes_its_user_and_reads_that_its_session_ended(app: TeamApp) -> None:
    await app.sign_up(fresh_address())

    changed = await app.run("return client.auth.updateUser(x)", {"data": {"name": "Grace"}})
    assert changed["data"]["user"]["user_metadata"]["name"] == "Grace"

    token = (await app.session())["access_token"]
    await app.run("return client.auth.signOut()")
    gone = await app.run("return (await client.auth.getUser(x)).error.name", token)
    assert gone == "AuthSessionMissingError"


PATHS = (
    *("auth/v1/signup", "auth/v1/token?grant_type=password", "auth/v1/verify", "auth/v1/otp", "auth/v1/magiclink"),
    *("auth/v1/recover", "auth/v1/resend", "auth/v1/user", "auth/v1/logout", "auth/v1/settings", "auth/v1/health"),
    *("auth/v1/.well-known/jwks.json", "auth/v1/.well-known/openid-configuration", "auth/v1/no-such-path"),
    *("rest/v1/messages", "rest/v1/rpc/nothing"),
)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_pages_of_any_origin_may_ask_and_read_every_answer(stack: RunningStack, method: str) -> None:
    names = "apikey,authorization,content-type,x-client-info,traceparent"
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": names}
    key = {"apikey": stack.env["SUPABASE_ANON_KEY"]}
    async with httpx.AsyncClient(
        timeout=TIMEOUT, base_url=stack.env["SUPABASE_URL"], headers={"Origin": "http://a.test"}
    ) as browser:
        for path in PATHS:
            allowed = await browser.options(path, headers=asked)
            answer = await browser.request(method, path, headers=key)

            assert allowed.status_code == 204
            assert method in allowed.headers["Access-Control-Allow-Methods"]
            assert allowed.headers["Access-Control-Allow-Headers"] == names
            assert allowed.headers["Access-Control-Allow-Origin"] == "*"
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert answer.status_code < 500


@pytest.mark.parametrize("path", ["/", "/welcome", "/auth/callback?next=%2Fchat%3Fa%3D1"])
async def test_a_magic_link_leads_back_to_the_app_signed_in(app: TeamApp, path: str) -> None:
    email, target = fresh_address(), f"{app.origin}{path}"

    sent = await app.run(
        "return client.auth.signInWithOtp({ email: x.email, options: { emailRedirectTo: x.target } })",
        {"email": email, "target": target},
    )
    assert sent["error"] is None
    mail = app.mail_to(email)

    assert mail.kind == "magiclink"
    assert await app.follow(mail.link or "") == target
    assert (await app.session())["user"]["email"] == email
    assert (await app.ask("/auth/me"))["body"]["email"] == email


async def test_a_magic_link_without_a_destination_leads_back_to_the_page_that_asked(app: TeamApp) -> None:
    email = fresh_address()
    await app.run("return client.auth.signInWithOtp({ email: x })", email)

    assert await app.follow(app.mail_to(email).link or "") == f"{app.origin}/"


async def test_the_code_of_a_mail_signs_in_as_its_link_does(app: TeamApp) -> None:
    email = fresh_address()
    await app.run("return client.auth.signInWithOtp({ email: x })", email)

    verified = await app.run(
        "return client.auth.verifyOtp({ email: x.email, token: x.code, type: 'email' })",
        {"email": email, "code": app.mail_to(email).code},
    )

    assert verified["error"] is None
    assert (await app.ask("/auth/me"))["body"]["email"] == email


async def test_a_recovery_link_signs_in_to_choose_a_new_password(app: TeamApp) -> None:
    email = fresh_address()
    await app.sign_up(email)
    await app.run("return client.auth.signOut()")
    await app.run(
        "return client.auth.resetPasswordForEmail(x.email, { redirectTo: x.target })",
        {"email": email, "target": f"{app.origin}/new-password"},
    )

    assert await app.follow(app.mail_to(email).link or "") == f"{app.origin}/new-password"
    changed = await app.run("return client.auth.updateUser(x)", {"password": "Another-passw0rd"})
    assert changed["error"] is None
    assert (await app.ask("/auth/me"))["status"] == 200

    await app.run("return client.auth.signOut()")
    signed_in = await app.run(
        "return client.auth.signInWithPassword(x)", {"email": email, "password": "Another-passw0rd"}
    )
    assert signed_in["error"] is None


async def test_a_link_works_once_and_then_leads_to_an_error(app: TeamApp) -> None:
    email = fresh_address()
    await app.run(
        "return client.auth.signInWithOtp({ email: x.email, options: { emailRedirectTo: x.target } })",
        {"email": email, "target": app.origin},
    )
    link = app.mail_to(email).link or ""
    await app.follow(link)

    await app.page.goto("about:blank")
    await app.page.goto(link)

    assert app.page.url.startswith(f"{app.origin}/#error=access_denied&error_code=otp_expired")


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://app.example.com/",
        "http://localhost.example.com/",
        "http://localhost:3000@intranet/",
        "http://localhost:x@intranet/",
        "//intranet/",
        "javascript:alert(1)//localhost",
    ],
)
async def test_a_link_never_leads_to_a_site_that_is_not_allowed(app: TeamApp, elsewhere: str) -> None:
    email = fresh_address()
    await app.run(
        "return client.auth.signInWithOtp({ email: x.email, options: { emailRedirectTo: x.target } })",
        {"email": email, "target": elsewhere},
    )

    assert await app.follow(app.mail_to(email).link or "") == f"{app.api}/"


@pytest.mark.parametrize("data", [{"name": "Ada"}, {"full_name": "Ada", "avatar_url": "https://a.test/a.png"}])
async def test_the_name_of_a_sign_up_reaches_the_profile_and_the_agent(app: TeamApp, data: dict[str, str]) -> None:
    await app.sign_up(fresh_address(), data=data)

    assert (await app.ask("/user/profile"))["body"]["name"] == "Ada"
    await app.say("ECHO hello")
    assert await app.human() == "User's name: Ada"


async def test_a_new_name_reaches_the_agent_and_keeps_what_the_agent_wrote(app: TeamApp) -> None:
    await app.sign_up(fresh_address(), data={"name": "Ada"})
    await app.say('CALL memory_insert {"label": "human", "new_string": "Likes green tea."}')
    assert await app.human() == "User's name: Ada\nLikes green tea."

    renamed = await app.ask("/user/profile", "PATCH", {"name": "Grace"})

    assert (renamed["status"], renamed["body"]["name"]) == (200, "Grace")
    if await app.human() == "User's name: Ada\nLikes green tea.":  # a slow agent is told before its next turn
        await app.say("ECHO hello")
    assert await app.human() == "User's name: Grace\nLikes green tea."


async def test_a_page_reads_its_users_profile_and_searches_the_history(app: TeamApp) -> None:
    email = fresh_address()
    await app.sign_up(email, data={"name": "Ada"})
    for text in ("ECHO about green tea", "ECHO about cats"):
        await app.say(text)

    profile = await app.run("return client.from('profiles').select().single()")
    assert profile["error"] is None
    assert (profile["data"]["email"], profile["data"]["name"], profile["data"]["agent_status"]) == (
        *(email, "Ada", "active"),
    )
    found = await app.run(
        "return client.from('messages').select('role, content').ilike('content', '%GREEN%').order('position')"
    )
    assert [message["role"] for message in found["data"]] == ["user", "assistant"]
    turns = await app.run("return client.from('turns').select('number, status, cost').order('number')")
    assert [turn["status"] for turn in turns["data"]] == ["completed", "completed"]
    assert (await app.run("return client.from('profiles').update({ name: 'Eve' }).eq('name', 'Ada')"))["error"]


@pytest.fixture
async def confirming_app(page: Page, origin: str, confirming: dict[str, str], confirming_server: str) -> TeamApp:
    app = TeamApp(page, origin, confirming, confirming_server, Path(confirming["MAIL_FILE"]))
    await app.open()
    return app


async def test_a_confirmation_link_leads_back_to_the_app_signed_in(confirming_app: TeamApp) -> None:
    app, email = confirming_app, fresh_address()

    signed_up = await app.sign_up(email, emailRedirectTo=f"{app.origin}/welcome", data={"full_name": "Ada Lovelace"})
    assert (signed_up["data"]["session"], signed_up["error"]) == (None, None)

    mail = app.mail_to(email)
    assert mail.kind == "signup"
    assert await app.follow(mail.link or "") == f"{app.origin}/welcome"
    me = await app.ask("/auth/me")
    assert (me["body"]["email"], me["body"]["name"]) == (email, "Ada Lovelace")
