"""Windows, screens and texts of all shapes."""

from playwright.async_api import expect

from tests.console.person import SMALL_PHONE, People, Person
from tests.stack.chat_client import ChatUser

LONG = "ECHO " + "Donaudampfschifffahrt" * 12
ARABIC = "ECHO مرحبا بالعالم، كيف حالك اليوم؟"
TABLE = "ECHO | " + " | ".join(f"column {number}" for number in range(20)) + " |"
XSS = (
    "ECHO <script>document.title='owned'</script>",
    "ECHO <img src=x onerror=\"document.title='owned'\">",
    "ECHO [press](javascript:document.title='owned') <a href=\"javascript:document.title='owned'\">me</a>",
    "ECHO <svg onload=\"document.title='owned'\"><style>*{display:none}</style></svg>",
    "ECHO <iframe srcdoc=\"<script>parent.document.title='owned'</script>\"></iframe>",
    "ECHO <form action=/api/v1/auth/logout><button>press me</button></form><math><mtext></form><style></math>",
    'ECHO ![picture](https://elsewhere.example.com/track.png) <div style="position:fixed;inset:0">over</div>',
)
VIEWS = ("Chat", "Memory", "Usage", "Account", "Inspector")


async def fits(person: Person) -> None:
    """Nothing of any view must be scrolled to sideways."""
    for view in VIEWS:
        await person.go(view)
        await person.settles()
        assert await person.sideways() <= 0, view


async def test_long_words_tables_and_right_to_left_text_fit_into_a_small_phone(console: People, ada: ChatUser) -> None:
    for text in (LONG, TABLE, ARABIC):
        await ada.say(text)
    person = await console.arrives(ada, viewport=SMALL_PHONE)
    await expect(person.replies).to_have_count(3)
    await fits(person)
    await person.go("Chat")
    said = person.replies.last.get_by_text("مرحبا")
    assert await said.evaluate("element => getComputedStyle(element).direction") == "rtl"


async def test_a_page_at_200_percent_fits_into_its_window(console: People, ada: ChatUser) -> None:
    await ada.say(LONG)
    # A window of 1280 pixels at 200 % has 640 of the page's.
    person = await console.arrives(ada, viewport={"width": 640, "height": 400}, device_scale_factor=2)
    await fits(person)
    await person.go("Chat")
    await expect(person.composer).to_be_in_viewport()


async def test_nothing_that_a_model_writes_runs(console: People, ada: ChatUser) -> None:
    for text in XSS:
        await ada.say(text)
    person = await console.arrives(ada)
    await expect(person.replies).to_have_count(len(XSS))
    for link in await person.replies.get_by_role("link").all():
        address = await link.get_attribute("href") or ""
        assert address.startswith(("http:", "https:", "mailto:")), address
    for tag in ("script", "iframe", "img", "form", "style", "[style]", "[onerror]", "[onload]"):
        assert await person.replies.locator(tag).count() == 0, tag
    await expect(person.page).not_to_have_title("owned")
    assert not [one.url for one in person.watch.responses if "elsewhere" in one.url]


async def test_nothing_moves_for_those_who_asked_for_it(console: People, ada: ChatUser) -> None:
    person = await console.arrives(ada, reduced_motion="reduce")
    await person.says("STALL 2")
    await person.reads("w0 w1")
    moving = "() => document.getAnimations().filter(one => one.effect.getComputedTiming().duration > 1).length"
    assert await person.page.evaluate(moving) == 0
    await person.button("Stop the reply").click()
    await expect(person.replies.last).to_contain_text(person.words["Stopped"])


async def test_dark_and_light_are_chosen_by_the_browser_and_by_the_person(console: People, ada: ChatUser) -> None:
    background = "() => getComputedStyle(document.body).backgroundColor"
    person = await console.arrives(ada, "account/profile", color_scheme="dark")
    await person.settles()
    dark = await person.page.evaluate(background)
    await person.page.emulate_media(color_scheme="light")
    light = await person.page.evaluate(background)
    assert dark != light
