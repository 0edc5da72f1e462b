"""Times and frames on a slow processor: printed, not asserted. They depend on the machine and what else it does."""

import statistics

from playwright.async_api import expect

from tests.console.person import PHONE, People
from tests.stack.chat_client import ChatUser

SLOWER = 4
"""Times slower than this machine."""
UNTIL_ONE_CAN_WRITE = """() => new Promise(done => {
  const look = () => document.querySelector("textarea") ? done(performance.now()) : requestAnimationFrame(look);
  look();
})"""
FRAMES = """() => {
  window.frames_ = [];
  let last = performance.now();
  const tick = now => (window.frames_.push(now - last), last = now, window.ticking = requestAnimationFrame(tick));
  window.ticking = requestAnimationFrame(tick);
}"""


async def test_how_fast_it_is_on_a_slow_phone(console: People, ada: ChatUser) -> None:
    await ada.say("ECHO hello")
    person = await console.arrives(ada, viewport=PHONE)
    await expect(person.composer).to_be_editable()
    devtools = await person.page.context.new_cdp_session(person.page)
    await devtools.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    interactive: list[float] = []
    for _ in range(5):
        await person.page.reload(wait_until="commit")
        interactive.append(await person.page.evaluate(UNTIL_ONE_CAN_WRITE))
    print(f"interactive at {SLOWER}x: median {statistics.median(interactive):.0f} ms of {interactive}")

    await person.page.evaluate(FRAMES)
    await person.says("SLOW 500 0.01")
    await person.reads("w499")
    await expect(person.replies.last).to_have_attribute("aria-busy", "false")
    frames: list[float] = await person.page.evaluate("() => (cancelAnimationFrame(window.ticking), window.frames_)")
    slow = [frame for frame in frames if frame > 34]
    print(
        f"100 words/s at {SLOWER}x: {len(frames)} frames, median {statistics.median(frames):.1f} ms, "
        f"{len(slow)} over 34 ms, longest {max(frames):.0f} ms"
    )
    assert len(frames) > 1
