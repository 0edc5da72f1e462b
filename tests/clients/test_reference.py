"""The API reference at `/docs` in a real browser."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import pytest
from playwright.async_api import Page, Request, ViewportSize, expect

from tests.unit.api.world import World

PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
PROFILE = "tag/user/GET/api/v1/user/profile"


@dataclass
class Reference:
    page: Page
    world: World
    url: str
    problems: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        self.page.on("request", self._note)

    def _note(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:")):
            self.foreign.append(request.url)

    async def open(self, fragment: str = "") -> None:
        await self.page.goto(f"{self.url}/docs{fragment}")
        await expect(self.page.get_by_role("heading", name="AI Chat Platform")).to_be_visible()


@pytest.fixture
async def reference(page: Page) -> AsyncIterator[Reference]:
    """Afterwards the browser must have reported no error, and loaded nothing from elsewhere."""
    async with World().serving() as world:
        reference = Reference(page, world, str(world.http.make_url("/")).rstrip("/"))
        reference.watch()
        yield reference
        await page.close()
    assert reference.problems == []
    assert reference.foreign == []


async def test_a_request_is_sent_with_a_token_and_its_answer_is_shown(reference: Reference) -> None:
    user = await reference.world.user()
    page = reference.page
    await reference.open(f"#{PROFILE}")
    operation = page.get_by_role("region", name="The user's profile", exact=True)
    await operation.get_by_role("button", name="Test Request").click()
    client = page.get_by_role("dialog", name="API Client")
    await client.get_by_role("textbox", name="Bearer Token").click()
    await page.keyboard.insert_text(str(user.token))
    async with page.expect_response(f"{reference.url}/api/v1/user/profile") as answered:
        await client.get_by_role("button", name="Send get request").click()
    answer = await answered.value
    assert answer.status == 200
    await expect(client.get_by_role("region", name="Response").first).to_contain_text(user.user_id)


async def test_an_event_is_found_by_search_with_its_schema_and_example(reference: Reference) -> None:
    page = reference.page
    await reference.open()
    await page.keyboard.press("Control+k")
    await page.keyboard.type("usage.settled")
    await page.get_by_role("option", name="usage.settled").first.click()
    event = page.get_by_role("region", name="usage.settled")
    await expect(event).to_contain_text("cost_status")
    await expect(event).to_contain_text("0kvqUGjW6Dkf")


async def test_the_link_of_a_problem_leads_to_its_code(reference: Reference) -> None:
    await reference.open("#budget_exceeded")
    await expect(reference.page.locator("li code", has_text="budget_exceeded").first).to_be_in_viewport()


async def test_it_fits_a_phone(reference: Reference) -> None:
    await reference.page.set_viewport_size(PHONE)
    await reference.open()
    await expect(reference.page.locator("li code", has_text="invalid_request").first).to_be_attached()
    assert await reference.page.evaluate("document.documentElement.scrollWidth") == 390
