"""An address that supabase-js changed, in a real browser: it reaches the profile, and the customer at LiteLLM."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page

from tests.browser.packages import supabase_js
from tests.browser.site import serve_site
from tests.conftest import NewServer
from tests.stack.chat_client import TIMEOUT
from tests.stack.running_stack import RunningStack
from tests.stack.team_app import TeamApp, fresh_address


@pytest.fixture
async def app(
    stack: RunningStack, page: Page, server_env: dict[str, str], new_server: NewServer
) -> AsyncIterator[TeamApp]:
    """The app on a server of the tests' own."""
    server = await new_server()
    async with serve_site({"supabase.js": await supabase_js(stack.data_dir)}) as origin:
        app = TeamApp(page, origin, server_env, server.url, Path(server_env["MAIL_FILE"]))
        await app.open()
        yield app


async def customer_address(env: dict[str, str], user_id: str) -> str | None:
    async with httpx.AsyncClient(timeout=TIMEOUT, base_url=env["LITELLM_BASE_URL"]) as litellm:
        headers = {"Authorization": f"Bearer {env['LITELLM_MASTER_KEY']}"}
        found = await litellm.get("/user/info", params={"user_id": user_id}, headers=headers)
    return None if found.status_code == 404 else found.json()["user_info"]["user_email"]


async def test_an_address_that_supabase_js_changed_reaches_the_profile_and_the_customer(app: TeamApp) -> None:
    old, new = fresh_address(), f"new-{uuid.uuid4().hex[:8]}@example.com"
    await app.sign_up(old)
    await app.say("ECHO hello")  # the agent and the customer exist
    me = (await app.ask("/auth/me"))["body"]
    assert await customer_address(app.env, me["id"]) == old
    old_token = (await app.session())["access_token"]

    asked = await app.run(
        "return client.auth.updateUser({ email: x.email }, { emailRedirectTo: x.target })",
        {"email": new, "target": f"{app.origin}/welcome"},
    )
    assert asked["error"] is None
    mail = app.mail_to(old, lambda mail: mail.kind == "email_change")  # Supabase Lite asks at the old address alone
    assert await app.follow(mail.link or "") == f"{app.origin}/welcome"

    async with asyncio.timeout(TIMEOUT):
        while await customer_address(app.env, me["id"]) != new:
            assert (await app.ask("/auth/me"))["status"] == 200
            await asyncio.sleep(0.2)
    assert (await app.ask("/user/profile"))["body"]["email"] == new
    profile = await app.run("return api(x.url, x.token)", {"url": f"{app.api}/api/v1/user/profile", "token": old_token})
    assert profile["body"]["email"] == new
