"""A conversation of years: an old message is found in its place, and reading upward reaches the beginning."""

import asyncio
import re
from typing import Final

import psycopg
import pytest
from playwright.async_api import expect

from tests.console.person import People, Person
from tests.stack.chat_client import ChatUser
from tests.stack.running_stack import RunningStack

TURNS: Final = 1_500
SECONDS_UPWARD: Final = 360

TO_THE_TOP: Final = """() => {
  for (let box = document.querySelector("[role=log]"); box; box = box.parentElement) box.scrollTop = 0;
}"""
MORE: Final = """(shown) => {
  const count = document.querySelectorAll("[role=log] article").length;
  return count > shown && count;
}"""
"""By the elements: to find 3,000 messages by role and name takes Playwright ten times as long as to load a page of them
takes the console."""

YEARS: Final = """
with turns as (
  insert into public.turns (user_id, number, client_message_id, content_hash, status, usage, cost, cost_status,
    created_at, started_at, finished_at)
  select %(user)s, n, 'old-' || n, 'hash', 'completed', '{}', 0.01, 'settled', at, at, at
  from generate_series(1, %(turns)s) n, lateral (select now() - (%(turns)s - n) * interval '7 hours' as at) t
  returning id, user_id, number, created_at
)
insert into public.messages (user_id, turn_id, role, content, position, created_at)
select user_id, id, role, said || number || case when number = 40 then ' about a pelican' else '' end,
  2 * number + n, created_at
from turns, (values ('user', 'Question ', 0), ('assistant', 'Answer ', 1)) r (role, said, n)
"""


@pytest.fixture
async def person(console: People, stack: RunningStack, ada: ChatUser) -> Person:
    """Ada, who has talked for years, at the end of her conversation."""
    async with await psycopg.AsyncConnection.connect(stack.env["SUPABASE_DB_URL"]) as connection:
        await connection.execute(YEARS, {"user": ada.id, "turns": TURNS})
    person = await console.arrives(ada)
    await person.reads(f"Answer {TURNS}")
    return person


async def test_an_old_message_is_found_with_what_was_said_around_it(person: Person) -> None:
    await person.composer.press("Control+k")
    dialog = person.page.get_by_role("dialog", name=person.words["Search the conversation"])
    await dialog.get_by_role("searchbox").fill("pelic")
    await dialog.get_by_role("button", name=re.compile("Question 40 about a pelican")).click()
    await dialog.wait_for(state="detached")
    excerpt = person.page.get_by_role("group", name=person.words["You are reading an earlier part."])
    said = excerpt.get_by_role("article", name=person.words["You"], exact=True)
    await expect(said.filter(has_text="Question 40 about a pelican")).to_be_in_viewport()
    for near in ("Question 39", "Question 41"):
        await expect(excerpt.get_by_text(near, exact=True)).to_have_count(1)
    await person.button("Back to the newest").click()
    await person.reads(f"Answer {TURNS}")
    await expect(person.replies.last).to_be_in_viewport()


async def test_reading_upward_reaches_the_beginning_and_keeps_everything(person: Person) -> None:
    await reads_upward(person)
    await expect(person.messages).to_have_count(TURNS)
    await expect(person.messages.first).to_contain_text("Question 1")
    await person.says("ECHO after all these years")
    await person.reads("after all these years")


async def reads_upward(person: Person) -> None:
    """Scroll to the top, each time that more is there, until everything is."""
    shown = 0
    async with asyncio.timeout(SECONDS_UPWARD):
        while shown < 2 * TURNS:
            await person.page.evaluate(TO_THE_TOP)
            shown = await (await person.page.wait_for_function(MORE, arg=shown)).json_value()
    await person.sees(person.words["The beginning of your conversation"])
