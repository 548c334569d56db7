"""A headless Chromium; a page that says anything on its console fails its test."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium where there is one, else the one that `playwright install chromium` brought."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def open_fragment(browser, tmp_path_factory):
    """open_fragment(html, width=...) -> the page that shows a fragment alone, from a file and with no network."""
    context, complaints = browser.new_context(offline=True), []

    def open_(html: str, width: int = 1200):
        path = tmp_path_factory.mktemp("page") / "page.html"
        path.write_text(f'<!doctype html><html lang="en"><meta charset="utf-8"><title>test</title><body>{html}</body></html>')
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_
    context.close()
    assert complaints == []
