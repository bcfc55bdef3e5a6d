"""A real browser for tests: Debian's chromium through Playwright; without one the tests are skipped and say why."""

import shutil

import pytest

MILLISECONDS = 60_000  # a busy machine may take its time
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no chromium on this machine: apt install chromium")
    playwright.expect.set_options(timeout=MILLISECONDS)
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser):
    """Open an address; the page, what its console said, and what it asked for."""
    contexts = []

    def open_one(address, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(MILLISECONDS)
        page = context.new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append((message.type, message.text)))
        page.on("pageerror", lambda error: said.append(("error", str(error))))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_load_state("networkidle")
        return page, said, asked

    yield open_one
    for context in contexts:
        context.close()
