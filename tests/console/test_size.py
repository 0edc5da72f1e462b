"""What a browser loads before its user can talk."""

from playwright.async_api import expect

from tests.console.person import People
from tests.stack.chat_client import ChatUser

FIRST_LOAD_KIB = 150
"""Of pages, scripts and styles, as they are sent (gzipped)."""


async def test_the_first_load_is_small(console: People, ada: ChatUser) -> None:
    person = await console.arrives(ada, service_workers="block")  # it loads the rest when there is time
    await expect(person.composer).to_be_enabled()
    files = [response for response in person.watch.responses if "/api/" not in response.url]
    sizes = {file.url.rsplit("/", 1)[1] or "/": (await file.request.sizes())["responseBodySize"] for file in files}
    total = sum(sizes.values()) / 1024
    print(f"first load: {total:.1f} KiB: {sizes}")
    assert {"/"} < sizes.keys()
    assert total <= FIRST_LOAD_KIB
