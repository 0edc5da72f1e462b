"""What happens to a reply when its reader's line is cut, or the page is reloaded."""

import aiohttp
from playwright.async_api import Browser, expect

from tests.console.person import PHONE, People, people
from tests.console.replies import WHOLE, HeldReply
from tests.faults.chaos import ChaosProxy
from tests.stack.chat_client import ChatUser, register
from tests.stack.running_stack import RunningStack


async def test_two_tabs_and_a_phone_show_the_same_conversation_as_it_goes_on(
    console: People, stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    desktop = await console.arrives(ada)
    tab = await desktop.another_tab()
    await tab.open()
    phone = await console.arrives(ada, viewport=PHONE)
    everywhere = (desktop, tab, phone)
    held = HeldReply(stack, http)
    await desktop.says(held.text)
    for person in everywhere:
        await person.reads("w0 w1")
        await expect(person.messages.last).to_contain_text(held.text)
    await phone.button("Stop the reply").wait_for()
    await held.goes_on()
    for person in everywhere:
        await person.reads(WHOLE)
        await person.button("Stop the reply").wait_for(state="detached")
    await phone.says("ECHO from the phone")
    for person in everywhere:
        await person.reads("from the phone")
        await expect(person.messages).to_have_count(2)
    stopped = HeldReply(stack, http)
    await tab.says(stopped.text)
    await phone.reads("w0 w1")
    await phone.button("Stop the reply").click()
    for person in everywhere:
        await expect(person.replies.last).to_contain_text(person.words["Stopped"])
        await expect(person.replies.last).not_to_contain_text("w2")
    await stopped.goes_on()


async def test_a_page_that_is_reloaded_in_mid_reply_shows_it_to_its_end(
    console: People, stack: RunningStack, http: aiohttp.ClientSession, ada: ChatUser
) -> None:
    person = await console.arrives(ada)
    held = HeldReply(stack, http)
    await person.says(held.text)
    await person.reads("w0 w1")
    await person.types("A thought that is not finished")
    await person.page.reload()
    await person.reads("w0 w1")
    await expect(person.composer).to_have_value("A thought that is not finished")
    await held.goes_on()
    await person.reads(WHOLE)
    await expect(person.replies).to_have_count(1)


async def test_a_line_that_is_cut_in_mid_reply_loses_nothing(
    browser: Browser, stack: RunningStack, http: aiohttp.ClientSession, language: str
) -> None:
    async with ChaosProxy(int(stack.url.rsplit(":", 1)[1])) as line:
        url = f"http://127.0.0.1:{line.port}"
        async with people(browser, url, language) as console:
            person = await console.arrives(await register(http, url))
            held = HeldReply(stack, http)
            await person.says(held.text)
            await person.reads("w0 w1")
            await line.refuse()
            for link in tuple(line.links):
                link.reset()
            await person.sees(person.words["frame: No connection: trying again"])
            await person.says("ECHO written without a line")
            await expect(person.messages.last).to_contain_text(person.words["Will be sent when the connection is back"])
            await held.goes_on()
            line.listen()
            await person.reads("written without a line")
            await person.reads(WHOLE, reply=0)
            await expect(person.messages).to_have_count(2)
            await expect(person.replies).to_have_count(2)
