"""The frame around the views."""

from playwright.async_api import expect

from tests.console.accessibility import Axe
from tests.console.person import People
from tests.stack.chat_client import ChatUser

VIEWS = ("Chat", "Memory", "Usage", "Account", "Inspector")


async def test_every_view_opens_from_the_navigation_without_violations(
    console: People, ada: ChatUser, axe: Axe
) -> None:
    person = await console.arrives(ada)
    await person.is_connected()
    for view in VIEWS:
        await person.go(view)
        await expect(person.page.get_by_role("main")).to_be_focused() if view != "Chat" else None
        await expect(person.page.get_by_role("heading", level=1)).to_be_visible()
        await person.settles()
        await axe.check(person.page)
    assert await person.link("Operate").count() == 0
