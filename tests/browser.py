"""A real headless Chromium for the tests of pages; opened pages may touch nothing but local files."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

BROWSERS = ("chromium-headless-shell", "chromium")


@contextmanager
def headless_browser() -> Iterator[Browser]:
    """The browser that `make browser` has put on the PATH. Raises FileNotFoundError where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is on the PATH: run make browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()
