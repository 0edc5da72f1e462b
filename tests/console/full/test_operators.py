"""An operator's day: finds a user, raises a budget, blocks and unblocks, reads what was done."""

from dataclasses import replace

import pytest
from playwright.async_api import expect

from tests.console.accessibility import Axe
from tests.console.person import DESKTOP, PHONE, People, Person
from tests.stack.chat_client import ChatUser, register
from tests.stack.commands import chat_users
from tests.stack.running_stack import RunningStack


@pytest.fixture
async def root(stack: RunningStack, ada: ChatUser) -> ChatUser:
    """An operator."""
    user = await register(ada.http, stack.url, "Root")
    await chat_users(stack, "admin", user.id, "on")
    sign_in = {"email": user.email, "password": user.password}  # its token says so from now on
    status, tokens = await user.call("POST", "/auth/login", sign_in)
    assert status == 200, tokens
    return replace(user, access_token=tokens["access_token"], refresh_token=tokens["refresh_token"])


async def finds(operator: Person, email: str) -> None:
    await operator.go("Operate")
    await operator.field("Find by e-mail or id").fill(email)
    await expect(operator.page.get_by_role("row")).to_have_count(2)  # the title's and the user's
    await operator.page.get_by_role("link", name=email).click()
    await expect(operator.page.get_by_role("heading", name=email)).to_be_visible()


async def test_an_operator_raises_a_budget_and_blocks_a_user_without_the_manual(
    console: People, root: ChatUser, ada: ChatUser, axe: Axe, stack: RunningStack
) -> None:
    await ada.say("ECHO hello")
    await chat_users(stack, "set-budget", ada.id, "--budget", "0.000001", "--period", "30d")
    user = await console.arrives(ada)
    await user.says("ECHO beyond")
    await user.sees(user.words["Not sent: your budget is used up"])

    operator = await console.arrives(root)
    await finds(operator, ada.email)
    await operator.settles()
    await axe.check(operator.page)
    await operator.button("admin: Change budget").click()
    dialog = operator.page.get_by_role("dialog")
    await axe.check(operator.page)
    await dialog.get_by_label(operator.words["Budget, US dollars"], exact=True).fill("50")
    await dialog.get_by_role("button", name=operator.words["ui: Save"]).click()
    await operator.sees(operator.words["The new limits apply from the next message on"])
    await user.messages.last.get_by_role("button", name=user.words["talk: Try again"]).click()
    await user.reads("beyond")

    user.watch.expect("403 auth/refresh", "401 auth/refresh", "403 auth/sessions", "403 agent/memory")
    await operator.button("Block").click()
    await dialog.get_by_label(operator.words["Reason"], exact=True).fill("Sends spam")
    await dialog.get_by_role("button", name=operator.words["Block"]).click()
    await operator.sees(operator.words["Blocked: nobody can use this account."])
    await user.sees(user.words["This account is blocked or closed. Who runs this server can tell you more."])
    await axe.check(operator.page)
    await operator.button("Unblock").click()
    await operator.button("Block").wait_for()


async def test_every_page_of_an_operator_is_usable_on_a_desk_and_on_a_phone(
    console: People, root: ChatUser, ada: ChatUser, axe: Axe
) -> None:
    await ada.say("ECHO hello")
    for viewport in (DESKTOP, PHONE):
        operator = await console.arrives(root, viewport=viewport)
        await operator.go("Operate")
        for part in ("Users", "Usage", "Audit", "Health"):
            parts = operator.page.get_by_role("navigation", name=operator.words["Parts of this section"])
            await parts.get_by_role("link", name=operator.words[f"admin: {part}"], exact=True).click()
            await operator.settles()
            await axe.check(operator.page)
            assert await operator.sideways() <= 0, (part, viewport)


async def test_others_do_not_get_in(console: People, ada: ChatUser) -> None:
    person = await console.arrives(ada, "admin/users")
    await person.is_connected()
    assert await person.link("Operate").count() == 0
    await expect(person.page.get_by_role("heading", level=1, name=person.words["Chat"])).to_be_visible()
