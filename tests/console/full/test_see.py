"""What people see of their agent: what it costs, a memory that both write at once, the wire and how it recovers."""

import re

import aiohttp
from playwright.async_api import expect

from tests.console.accessibility import Axe
from tests.console.person import People, Person
from tests.console.replies import WHOLE, HeldReply
from tests.stack.chat_client import ChatUser
from tests.stack.running_stack import RunningStack

BEGUN = "w0 w1"
"""How a held reply begins."""


async def test_usage_is_empty_at_first_grows_with_a_turn_and_can_be_downloaded(
    console: People, ada: ChatUser, axe: Axe
) -> None:
    person = await console.arrives(ada, "usage")
    await person.sees(person.words["usage: Nothing was used in these days"])
    await axe.check(person.page)
    await ada.say("ECHO hello")
    main = person.page.get_by_role("main")
    await main.get_by_role("img", name=re.compile(person.words["usage: Cost"])).wait_for()
    await axe.check(person.page)
    await main.get_by_text(person.words["Show as a table"]).click()
    table = main.get_by_role("region", name=person.words["usage: Cost"])
    await expect(table.get_by_role("rowheader")).to_have_count(1)

    await person.button("7 days").click()
    await expect(person.page).to_have_url(re.compile(r"#/usage\?range=7$"))
    async with person.page.expect_download() as download:
        await person.button("usage: Download CSV").click()
    saved = await (await download.value).path()
    header, *rows = saved.read_text("utf-8").splitlines()
    assert header.startswith("date_utc,model,")
    assert len(rows) == 1


async def test_a_range_that_ends_before_it_begins_is_not_read(console: People, ada: ChatUser) -> None:
    person = await console.arrives(ada, "usage")
    await person.button("usage: Custom").click()
    await expect(person.page).to_have_url(re.compile("from=.*to="))
    before = person.page.url
    await person.field("usage: From").fill("2026-02-01")
    await person.field("usage: To").fill("2026-01-01")
    await expect(person.page.get_by_role("alert")).to_contain_text("366")
    assert "to=2026-01-01" not in person.page.url
    await person.field("usage: To").fill("2026-02-28")
    await expect(person.page).to_have_url(re.compile("from=2026-02-01&to=2026-02-28"))
    assert person.page.url != before


async def test_a_block_that_the_agent_changed_during_an_edit_is_not_overwritten_unasked(
    console: People, ada: ChatUser, axe: Axe
) -> None:
    person = await console.arrives(ada, "memory")
    about = person.page.get_by_role("main").get_by_role("article", name=person.words["About you"])
    await about.get_by_role("button", name=re.compile(person.words["memory: Edit"])).click()
    text = about.get_by_role("textbox", name=person.words["About you"])
    mine = f"{await text.input_value()}\nShe likes jazz."
    await text.fill(mine)
    await ada.say("Remember that my cat is called Tom.")
    conflict = about.get_by_role("alert")
    await expect(conflict.get_by_role("insertion")).to_contain_text("Tom")
    await expect(about.get_by_role("button", name=person.words["ui: Save"])).to_be_disabled()
    await expect(text).to_have_value(mine)
    await axe.check(person.page)
    await about.get_by_role("button", name=person.words["Take the agent’s text"]).click()
    await expect(text).to_have_value(re.compile("Tom"))
    await expect(text).not_to_have_value(re.compile("jazz"))


async def test_a_line_that_is_cut_in_the_inspector_resumes_and_replays(
    console: People, stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser, axe: Axe
) -> None:
    person = await console.arrives(ada, "inspector")
    other = await person.another_tab()
    await other.open("inspector")
    await other.sees(person.words["Another tab of this browser has the connection and shares it. This is its record."])
    held = await _reply_begins(person, HeldReply(stack, http))
    await other.button("Cut my line").click()  # the other tab's
    await person.sees(re.compile("cut at|оборвано в"))
    await held.goes_on()
    for tab in (person, other):
        happened = tab.page.get_by_role("region", name=person.words["What happened"])
        newest = happened.get_by_role("listitem").first
        await expect(newest.get_by_text(person.words["inspector: resumed"], exact=True)).to_be_visible()
        await expect(happened.get_by_role("listitem")).to_have_count(2)
        await tab.sees(WHOLE)
    await axe.check(person.page)


async def test_the_record_of_the_wire_has_no_token(console: People, ada: ChatUser) -> None:
    person = await console.arrives(ada, "inspector")
    frames = person.page.get_by_role("region", name=person.words["Frames"])
    sent = frames.get_by_role("group").filter(has=person.page.get_by_text("auth", exact=True))
    await sent.last.locator("summary").click()
    await expect(sent.last).to_contain_text('"token": "…"')
    assert ada.access_token not in await person.page.content()


async def test_a_stream_that_is_killed_in_the_inspector_is_recovered(
    console: People, stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    person = await console.arrives(ada, "inspector")
    await expect(person.button("Kill the stream")).to_be_disabled()
    held = await _reply_begins(person, HeldReply(stack, http))
    await person.button("Kill the stream").click()
    await person.sees(re.compile("Broken at|Прервано в"))
    await held.goes_on()
    await person.sees(WHOLE)


async def _reply_begins(person: Person, held: HeldReply) -> HeldReply:
    await person.field("inspector: Message").fill(held.text)
    await person.button("inspector: Send").click()
    await person.sees(BEGUN)
    return held
