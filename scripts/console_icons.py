"""Makes the PNG icons of the installed console from console/public/icon.svg, in Chromium.

Run it after a change of that picture: `python scripts/console_icons.py`.
"""

import re
from pathlib import Path

from playwright.sync_api import sync_playwright

PUBLIC = Path(__file__).parents[1] / "console" / "public"
ICONS = {"icon-192.png": (192, False), "icon-512.png": (512, False), "icon-maskable-512.png": (512, True)}
"""File → size in pixels, and whether the device cuts its own shape out of the picture, which then has no corners."""


def page_of(svg: str, size: int, *, is_maskable: bool) -> str:
    if is_maskable:  # what matters stays in the middle 80 per cent
        svg = re.sub(r'viewBox="0 0 64 64"', 'viewBox="-6 -6 76 76"', svg)
        svg = re.sub(r'<rect width="64" height="64" rx="14"', '<rect x="-6" y="-6" width="76" height="76"', svg)
    return f"<style>body {{ margin: 0 }} svg {{ display: block; width: {size}px; height: {size}px }}</style>{svg}"


def main() -> None:
    svg = (PUBLIC / "icon.svg").read_text("utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, (size, is_maskable) in ICONS.items():
            page = browser.new_page(viewport={"width": size, "height": size})
            page.set_content(page_of(svg, size, is_maskable=is_maskable))
            page.screenshot(path=PUBLIC / name, omit_background=True)
        browser.close()


if __name__ == "__main__":
    main()
