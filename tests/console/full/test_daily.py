"""What people do beside talking: they correct the memory, search, make a key."""

import re

from playwright.async_api import expect

from tests.console.accessibility import Axe
from tests.console.person import People
from tests.stack.chat_client import ChatUser


async def test_a_memory_is_corrected_added_and_forgotten(console: People, ada: ChatUser, axe: Axe) -> None:
    await ada.say("Remember that my cat is called Tom.")
    person = await console.arrives(ada, "memory")
    about = person.page.get_by_role("main").get_by_role("article", name=person.words["About you"])
    await expect(about).to_contain_text("Tom")
    await about.get_by_role("button", name=re.compile(person.words["memory: Edit"])).click()
    text = about.get_by_role("textbox", name=person.words["About you"])
    await text.fill("My cat is called Jerry.")
    await about.get_by_role("button", name=person.words["ui: Save"]).click()
    await expect(about.get_by_role("textbox")).to_have_count(0)
    await expect(about).to_contain_text("Jerry")
    blocks = (await ada.get("/agent/memory"))["blocks"]
    assert "My cat is called Jerry." in [block["value"] for block in blocks]

    await person.button("memory: Add").click()
    dialog = person.page.get_by_role("dialog")
    await axe.check(person.page)
    await dialog.get_by_label(person.words["memory: Text"], exact=True).fill("The spare key is with Grace.")
    await dialog.get_by_role("button", name=person.words["ui: Save"]).click()
    await person.sees("The spare key is with Grace.")
    await axe.check(person.page)
    await person.page.get_by_role("main").get_by_role("button", name=person.words["memory: Forget"]).click()
    await dialog.get_by_role("button", name=person.words["memory: Forget"]).click()
    await person.sees(person.words["Nothing is stored yet"])
    assert (await ada.get("/agent/memory"))["archival"]["data"] == []


async def test_a_turn_that_remembers_shows_what_it_changed_beside_the_conversation(
    console: People, ada: ChatUser, axe: Axe
) -> None:
    await ada.say("ECHO hello")
    person = await console.arrives(ada)
    memory = person.page.get_by_role("complementary", name=person.words["talk: Memory"])
    await memory.get_by_role("article", name=person.words["About you"]).wait_for()
    await person.says("Remember that my cat is called Tom.")
    await person.reads("Tom")
    await expect(memory.get_by_text(person.words["Changed just now"])).to_be_visible()
    await expect(memory.get_by_role("insertion").filter(has_text="Tom").first).to_be_visible()
    await axe.check(person.page)


async def test_a_key_is_shown_once_works_and_ends_when_it_is_revoked(console: People, ada: ChatUser, axe: Axe) -> None:
    person = await console.arrives(ada, "account/keys")
    await person.button("account: New key").first.click()
    dialog = person.page.get_by_role("dialog")
    await axe.check(person.page)
    await dialog.get_by_role("textbox").first.fill("My bot")
    await dialog.get_by_role("button", name=person.words["account: Create the key"]).click()
    shown = await dialog.get_by_text(re.compile(r"^\w+_[\w-]{20,}$")).first.text_content()
    assert shown
    await axe.check(person.page)
    bearer = {"Authorization": f"Bearer {shown}"}
    async with ada.http.get(f"{ada.url}/api/v1/user/profile", headers=bearer) as answer:
        assert answer.status == 200
    await dialog.get_by_role("button", name=person.words["account: Done"]).click()
    await expect(person.page.get_by_text(shown)).to_have_count(0)
    await person.page.get_by_role("button", name=re.compile("My bot")).click()
    await dialog.get_by_role("button", name=person.words["account: Revoke"], exact=True).click()
    await person.sees(person.words["No keys yet"])
    async with ada.http.get(f"{ada.url}/api/v1/user/profile", headers=bearer) as answer:
        assert answer.status == 401


async def test_a_search_finds_an_old_message_and_shows_it_in_its_place(
    console: People, ada: ChatUser, axe: Axe
) -> None:
    for text in ("ECHO the lighthouse in autumn", *(f"ECHO filler {number}" for number in range(5))):
        await ada.say(text)
    person = await console.arrives(ada)
    await person.composer.press("Control+k")
    dialog = person.page.get_by_role("dialog", name=person.words["Search the conversation"])
    await dialog.get_by_role("searchbox").fill("LIGHT autumn")
    hit = dialog.get_by_role("button", name=re.compile("lighthouse"))
    await hit.first.wait_for()
    await expect(dialog.locator("mark").first).to_be_attached()
    await axe.check(person.page)
    await hit.first.click()
    await dialog.wait_for(state="detached")
    await expect(person.messages.filter(has_text="lighthouse")).to_be_in_viewport()
    await person.page.wait_for_function("() => [...CSS.highlights.values()].some(words => words.size > 0)")
