"""A person's whole life here, from the first page to the deletion of the account."""

import re
import uuid

from playwright.async_api import expect

from tests.console.accessibility import Axe
from tests.console.person import People, Person

VIEWS = ("Memory", "Usage", "Account", "Inspector")
TOM = re.compile("Tom|Том")
THIS_BROWSER = re.compile(r"^Chrome \(headless\)(, | on )")
PASSWORD = "Passw0rd-2026"
GONE = (
    "Your account and all that belonged to it are deleted.",
    "Your account is closed. The rest of it is being deleted and will be gone soon.",  # where a service is slow
)


async def signs_up(person: Person, name: str = "Ada") -> str:
    """Create an account on the first page. Its address."""
    email = f"{uuid.uuid4().hex[:12]}@example.com"
    await person.page.get_by_role("main").get_by_role("link", name=person.words["welcome: Sign up"]).click()
    await person.field("welcome: Name").fill(name)
    await person.field("welcome: E-mail").fill(email)
    await person.field("welcome: Password").fill(PASSWORD)
    await person.button("welcome: Sign up").click()
    return email


async def deletes_the_account(person: Person, email: str) -> None:
    await person.go("Account")
    await person.page.get_by_role("main").get_by_role("link", name=person.words["account: Data"]).click()
    await person.button("Delete the account…").click()
    dialog = person.page.get_by_role("dialog", name=person.words["Delete the account"])
    await dialog.get_by_role("textbox").first.fill(email)
    await dialog.get_by_label(person.words["Current password"], exact=True).fill(PASSWORD)
    await dialog.get_by_role("button", name=person.words["Delete it all"]).click()


async def test_a_person_signs_up_talks_is_remembered_looks_around_and_leaves(console: People, axe: Axe) -> None:
    person = await console.arrives()
    await person.sees(person.words["welcome: An AI of your own that remembers you"])
    await axe.check(person.page)
    email = await signs_up(person)
    await person.is_connected()
    await axe.check(person.page)
    await person.button("Remember that my cat is called Tom and that I like hiking.").click()
    await person.reads(TOM)
    await person.replies.last.get_by_text(person.words["Remembered"], exact=True).wait_for()
    await axe.check(person.page)
    await person.says("What is my cat called?" if person.words.language == "en" else "Как зовут моего кота?")
    await person.reads(TOM)
    await expect(person.replies).to_have_count(2)
    for view in VIEWS:
        await person.go(view)
        await expect(person.page.get_by_role("heading", level=1, name=person.words[view])).to_be_visible()
        await person.settles()
        await axe.check(person.page)
        assert await person.sideways() <= 0, view
    await person.go("Memory")
    await person.sees(TOM)
    await person.go("Account")
    await person.page.get_by_role("main").get_by_role("link", name=person.words["account: Sign-in"]).click()
    await person.sees(THIS_BROWSER)
    await deletes_the_account(person, email)
    person.watch.expect("401 auth/logout")
    await person.sees(re.compile("|".join(re.escape(person.words[sentence]) for sentence in GONE)))
    await axe.check(person.page)
    await person.page.reload()
    await expect(
        person.page.get_by_role("main").get_by_role("button", name=person.words["Sign in"], exact=True)
    ).to_be_visible()
