"""axe-core on what a page shows."""

from pathlib import Path
from typing import Any

from playwright.async_api import Page

from tests.browser.packages import axe

RUN = """async () => {
  // Colours are judged when nothing fades any more.
  await Promise.allSettled(document.getAnimations().filter(a => a.effect.getComputedTiming().endTime < 1e6)
    .map(a => (a.finish(), a.finished)));
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map(n => `${n.target}: ${n.html}`) }));
}"""


class Axe:
    """Finds what people with disabilities cannot use."""

    def __init__(self, script: str) -> None:
        self._script = script

    async def check(self, page: Page) -> None:
        """Fail with the violations of the page as it is."""
        if not await page.evaluate("() => 'axe' in window"):
            await page.evaluate(self._script)
        violations: list[dict[str, Any]] = await page.evaluate(RUN)
        assert not violations, violations


async def axe_of(data_dir: Path) -> Axe:
    return Axe(await axe(data_dir))
