"""Chromium as the machine has it (Debian's package `chromium`), driven by Playwright."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
LAUNCH_MS = 240_000
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup",
)
"""Tests run as root, without network requests of the browser's own, and without a process per window for an address bar
that nobody sees."""


def program() -> str:
    """The browser's path: CHROMIUM, else whichever of NAMES is installed. Without one the test fails."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail("no Chromium on this machine: install it (apt-get install chromium), or name it in CHROMIUM")
    return found


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A headless browser with an empty profile."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program(), args=QUIET, timeout=LAUNCH_MS)
        try:
            yield browser
        finally:
            await browser.close()
