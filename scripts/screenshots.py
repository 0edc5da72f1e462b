"""Make the pictures of the README from a running stack, with a conversation that is always the same.

    uv run chat up                                            # with the demo model
    uv run python scripts/screenshots.py http://127.0.0.1:8080

Needs Debian's `chromium`, or the path of another in CHROMIUM. Writes `docs/images/*.png`.
"""

import asyncio
import re
import sys
import uuid
from pathlib import Path

import aiohttp
from playwright.async_api import Browser, ViewportSize, expect

from tests.browser.chromium import chromium
from tests.console.person import DESKTOP, PHONE, People, Person
from tests.stack.chat_client import ChatUser

IMAGES = Path(__file__).parent.parent / "docs" / "images"
MOST_BYTES = 150_000
PASSWORD = "Passw0rd-2026"  # noqa: S105 - of users that are deleted at the end
NAMES = {"en": "Ada", "ru": "Ада"}
TALKS = {
    "en": (
        "Hello! My name is Ada.",
        "Remember that my cat is called Tom and that I like hiking.",
        "Remember that I take my coffee without sugar.",
        "What is my cat called?",
    ),
    "ru": (
        "Привет! Меня зовут Ада.",
        "Запомни, что моего кота зовут Том и что я люблю походы.",
        "Запомни, что кофе я пью без сахара.",
        "Как зовут моего кота?",
    ),
}
SECONDS = 60


class Photographer:
    """One user in one language, with a conversation behind them."""

    def __init__(self, browser: Browser, url: str, language: str) -> None:
        self._people = People(browser, url, language)
        self._url, self._language = url, language

    async def begin(self, http: aiohttp.ClientSession) -> None:
        self._user = await _register(http, self._url, NAMES[self._language])
        for text in TALKS[self._language]:
            await self._user.say(text)

    async def take(self, name: str, view: str, theme: str, viewport: ViewportSize) -> None:
        """Write `name`.png with the view as this window shows it."""
        person = await self._people.arrives(
            self._user, view, viewport=viewport, color_scheme=theme, reduced_motion="reduce"
        )
        await self._is_ready(person, view)
        path = IMAGES / f"{name}.png"
        await person.page.screenshot(path=path, animations="disabled", caret="hide")
        await person.page.context.close()  # it counts as a device
        size = path.stat().st_size
        sys.stdout.write(f"{path.relative_to(IMAGES.parent.parent)}: {size / 1000:.0f} kB\n")
        assert size <= MOST_BYTES, f"{path} has {size} bytes, more than {MOST_BYTES}"

    async def _is_ready(self, person: Person, view: str) -> None:
        await person.is_connected()
        if not view:
            await person.reads(re.compile("Tom|Том"))
        await person.settles()
        await expect(person.page.get_by_role("main")).to_be_visible()
        await person.page.evaluate("() => document.fonts.ready")

    async def end(self) -> None:
        await self._user.call("DELETE", "/user", {"current_password": PASSWORD})
        await self._people.leave()


async def _register(http: aiohttp.ClientSession, url: str, name: str) -> ChatUser:
    email = f"ada-{uuid.uuid4().hex[:4]}@example.com"
    body = {"email": email, "password": PASSWORD, "name": name}
    async with http.post(f"{url}/api/v1/auth/register", json=body) as response:
        answer = await response.json()
        assert response.status == 201, answer
    return ChatUser(http, url, answer["user"]["id"], email, PASSWORD, answer["access_token"], answer["refresh_token"])


async def main(url: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=SECONDS * 1000)
    async with chromium() as browser, aiohttp.ClientSession() as http:
        english, russian = Photographer(browser, url, "en"), Photographer(browser, url, "ru")
        for photographer in (english, russian):
            await photographer.begin(http)
        await english.take("chat-light", "", "light", DESKTOP)
        await english.take("chat-dark", "", "dark", DESKTOP)
        await english.take("memory-light", "memory", "light", DESKTOP)
        await english.take("usage-dark", "usage", "dark", DESKTOP)
        await english.take("phone-light", "", "light", PHONE)
        await russian.take("chat-russian-light", "", "light", DESKTOP)
        await russian.take("phone-russian-dark", "", "dark", PHONE)
        for photographer in (english, russian):
            await photographer.end()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8080"))
