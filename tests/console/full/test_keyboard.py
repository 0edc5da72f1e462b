"""With the keyboard alone."""

from playwright.async_api import expect

from tests.console.person import People, Person
from tests.console.test_life import PASSWORD
from tests.stack.chat_client import ChatUser

FOCUSED = """() => {
  const element = document.activeElement;
  const shown = getComputedStyle(element);
  return { name: element.getAttribute("aria-label") || element.textContent.trim() || element.id,
           isSeen: shown.outlineStyle !== "none" || shown.boxShadow !== "none" };
}"""
MOST = 60
"""Stops on the way to a control."""


async def tabs_to(person: Person, name: str, key: str = "Tab") -> None:
    """Press Tab until the control of this name has the focus, and see that it shows it."""
    reached = []
    for _ in range(MOST):
        await person.page.keyboard.press(key)
        focused = await person.page.evaluate(FOCUSED)
        reached.append(focused["name"])
        if focused["name"] == name:
            assert focused["isSeen"], name
            return
    raise AssertionError(f"Tab does not reach {name!r}, but {reached}")


async def test_a_person_signs_in_talks_stops_and_looks_around_by_keys_alone(console: People, ada: ChatUser) -> None:
    person = await console.arrives()
    keys, words = person.page.keyboard, person.words
    await person.field("welcome: E-mail").focus()
    await keys.type(ada.email)
    await keys.press("Tab")
    await keys.type(PASSWORD)
    await keys.press("Enter")
    await expect(person.composer).to_be_focused()
    await keys.type("STALL 2")
    await keys.press("Enter")
    await person.reads("w0 w1")
    await tabs_to(person, words["Stop the reply"])
    await keys.press("Enter")
    await expect(person.replies.last).to_contain_text(words["Stopped"])
    await person.composer.focus()
    await keys.type("ECHO one")
    await keys.press("Shift+Enter")
    await keys.type("two")
    await expect(person.composer).to_have_value("ECHO one\ntwo")
    await keys.press("Enter")
    await person.reads("one")
    for view in ("Memory", "Usage", "Account"):
        await tabs_to(person, words[view])
        await keys.press("Enter")
        await expect(person.page.get_by_role("main")).to_be_focused()
        await expect(person.page.get_by_role("heading", level=1, name=words[view])).to_be_visible()


async def test_a_dialog_keeps_the_focus_and_gives_it_back(console: People, ada: ChatUser) -> None:
    person = await console.arrives(ada)
    search = person.button("Search (Ctrl+K)")
    await search.focus()
    await person.page.keyboard.press("Enter")
    dialog = person.page.get_by_role("dialog")
    await expect(dialog.get_by_role("searchbox")).to_be_focused()
    for _ in range(5):
        await person.page.keyboard.press("Tab")
        inside = "() => document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        assert await person.page.evaluate(inside)
    await person.page.keyboard.press("Escape")
    await dialog.wait_for(state="detached")
    await expect(search).to_be_focused()
