"""A person at a browser: opens the console, signs in, talks, looks around, by roles and accessible names.

Every wait is Playwright's own, bounded by `BROWSER_SECONDS`, on something that the person sees.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from playwright.async_api import Browser, BrowserContext, Locator, Page, StorageState, ViewportSize, expect

from tests.conftest import BROWSER_SECONDS
from tests.console.watch import Watch
from tests.console.words import Words
from tests.stack.chat_client import ChatUser

LOCALES = {"en": "en-GB", "ru": "ru-RU"}
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
SMALL_PHONE: ViewportSize = {"width": 360, "height": 740}
SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass(frozen=True, slots=True)
class Person:
    """One tab. `words` are the console's in the person's language."""

    page: Page
    url: str
    words: Words
    watch: Watch
    has_touch: bool = False

    async def open(self, view: str = "") -> None:
        """Open the console, at a view such as "usage" or "admin/users"."""
        await self.page.goto(f"{self.url}/#/{view}")

    async def another_tab(self) -> "Person":
        page = await self.page.context.new_page()
        return replace(self, page=page)

    # Where to go

    def link(self, name: str) -> Locator:
        """A view's link in the navigation."""
        return self.page.get_by_role("navigation", name=self.words["Views"]).get_by_role("link", name=self.words[name])

    async def go(self, view: str) -> None:
        await self.link(view).click()
        await expect(self.link(view)).to_have_attribute("aria-current", "page")

    async def settles(self) -> None:
        """Return when nothing on the page says that it is still loading."""
        await expect(self.page.get_by_text(self.words["Loading…"])).to_have_count(0)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=self.words[name], exact=True)

    def field(self, name: str) -> Locator:
        """A text field by its label."""
        return self.page.get_by_label(self.words[name], exact=True)

    # Talking

    @property
    def composer(self) -> Locator:
        return self.page.get_by_role("textbox", name=self.words["Message"], exact=True)

    @property
    def conversation(self) -> Locator:
        return self.page.get_by_role("log")

    @property
    def replies(self) -> Locator:
        return self.conversation.get_by_role("article", name=self.words["Agent"], exact=True)

    @property
    def messages(self) -> Locator:
        """What the user has said."""
        return self.conversation.get_by_role("article", name=self.words["You"], exact=True)

    async def types(self, text: str) -> None:
        await self.composer.fill(text)

    async def says(self, text: str) -> None:
        """Write and send, while no reply runs on a touch screen: there Enter begins a line."""
        await self.types(text)
        if self.has_touch:
            await self.button("Send").click()
        else:
            await self.composer.press("Enter")

    async def reads(self, text: str | re.Pattern[str], *, reply: int = -1) -> None:
        """Wait until the newest reply, or another, says this."""
        await expect(self.replies.nth(reply)).to_contain_text(text)

    async def sees(self, text: str | re.Pattern[str]) -> None:
        await expect(self.page.get_by_text(text).filter(visible=True).first).to_be_visible()

    async def is_connected(self) -> None:
        await expect(self.page.get_by_text(self.words["Connected"], exact=True).filter(visible=True)).to_be_visible()

    async def sideways(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(await self.page.evaluate(SIDEWAYS))


async def signed_in(user: ChatUser, token: str | None = None, seconds: int = 3600) -> StorageState:
    """The browser's storage after this user has signed in; the token, the user's or another, expires in so many
    seconds."""
    session = {
        "access_token": token or user.access_token,
        "refresh_token": user.refresh_token,
        "token_type": "bearer",
        "expires_in": seconds,
        "expires_at": (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(),
        "user": await user.get("/auth/me"),
    }
    value = orjson.dumps(session).decode()
    return {"origins": [{"origin": user.url, "localStorage": [{"name": "chat.session", "value": value}]}]}


class People:
    """Opens browser profiles on the console of `url`; checks them all at the end."""

    def __init__(self, browser: Browser, url: str, language: str) -> None:
        self._browser = browser
        self._opened: list[tuple[BrowserContext, Watch]] = []
        self.url = url
        self.language = language

    async def arrives(
        self,
        user: ChatUser | None = None,
        view: str = "",
        *,
        viewport: ViewportSize = DESKTOP,
        **options: Any,
    ) -> Person:
        """A browser of its own that opens the console, signed in as `user` if given."""
        if user is not None:
            options["storage_state"] = await signed_in(user)
        touch = viewport["width"] < 600
        context = await self._browser.new_context(
            locale=LOCALES[self.language],
            timezone_id="Europe/Berlin",
            viewport=viewport,
            has_touch=touch,
            is_mobile=touch,
            **options,
        )
        context.set_default_timeout(BROWSER_SECONDS * 1000)
        watch = Watch()
        self._opened.append((context, watch))
        await watch.follow(context)
        person = Person(await context.new_page(), self.url, Words(self.language), watch, touch)
        await person.open(view)
        return person

    async def leave(self) -> None:
        for context, _ in self._opened:
            await context.close()

    def check(self) -> None:
        for _, watch in self._opened:
            watch.check()


@asynccontextmanager
async def people(browser: Browser, url: str, language: str) -> AsyncIterator[People]:
    """People whose browsers must have nothing to complain about in the end."""
    opened = People(browser, url, language)
    try:
        yield opened
        opened.check()
    finally:
        await opened.leave()
