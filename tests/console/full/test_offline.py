"""Without a network: the console still opens, and goes on when the network is back."""

import aiohttp
from playwright.async_api import Browser, expect

from tests.console.person import people
from tests.faults.chaos import ChaosProxy
from tests.stack.chat_client import register
from tests.stack.running_stack import RunningStack

INSTALLED = "() => navigator.serviceWorker.ready.then(() => !!navigator.serviceWorker.controller)"


async def test_the_console_opens_without_a_network_and_says_so(
    browser: Browser, stack: RunningStack, http: aiohttp.ClientSession, language: str
) -> None:
    async with ChaosProxy(int(stack.url.rsplit(":", 1)[1])) as line, people(browser, line.url, language) as console:
        person = await console.arrives(await register(http, line.url))
        await person.is_connected()
        await person.page.evaluate(INSTALLED)
        await line.refuse()
        for link in tuple(line.links):
            link.reset()
        await person.page.reload()
        await expect(person.composer).to_be_visible()
        await person.sees(person.words["frame: No connection: trying again"])
        await person.says("ECHO written in a tunnel")
        await expect(person.messages.last).to_contain_text(person.words["Will be sent when the connection is back"])
        line.listen()
        await person.reads("written in a tunnel")
