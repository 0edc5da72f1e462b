"""Signing out, on a computer that others use, too."""

from playwright.async_api import expect

from tests.console.person import People
from tests.stack.chat_client import ChatUser

ONLY_THE_MARK = "() => Object.keys({...localStorage, ...sessionStorage}).every(key => key === 'console.left')"


async def test_signing_out_in_one_tab_leaves_nothing_in_any(console: People, ada: ChatUser) -> None:
    person = await console.arrives(ada, "account")
    other = await person.another_tab()
    await other.open("talk")
    await other.types("a secret")
    await other.page.wait_for_function("() => JSON.stringify({...localStorage}).includes('a secret')")

    await person.button("Sign out").click()

    for tab in (person, other):
        await expect(tab.button("Sign in")).to_be_visible()
        await tab.page.wait_for_function(ONLY_THE_MARK)
        await expect(tab.page.get_by_text(tab.words["You have been signed out"])).to_have_count(0)
        assert tab.page.url == f"{tab.url}/#/"
