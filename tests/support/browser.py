"""The assistant's page in a real browser, before a stand-in for the server: fixtures, and what a user does and sees.

Every test that visits the page also proves that nothing broke the content security policy, that no script of the
page failed, and that it asked for nothing but its own files and the API.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from assistant import Assistant, Refusal, chat, event, exact, pieces
from servers import serving

try:
    from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
except ImportError:
    Browser = Locator = Page = expect = sync_playwright = None

Visit = Callable[..., "Page"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 800}
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  violations.push([event.effectiveDirective, event.blockedURI, event.sample].join(" "));
});
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For one module: while it is there, an event loop runs in this thread, and no other can."""
    if sync_playwright is None:
        pytest.skip("needs the package playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[Assistant]:
    with serving(Assistant()) as server:
        yield server


@pytest.fixture
def visit(browser: Browser, server: Assistant) -> Iterator[Visit]:
    """Opens the page in a context of its own, with Playwright's options for that; `ready` waits for the server."""
    contexts, pages, faults = [], [], []

    def visit(ready: bool = True, before: str = "", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        context.set_default_timeout(10_000)
        context.add_init_script(WATCH + before)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("request", lambda request: request.url.startswith(server.url) or faults.append(request.url))
        page.on("console", lambda message: "Content Security" in message.text and faults.append(message.text))
        pages.append(page)
        page.goto(server.url)
        if ready:
            expect(page.locator("#state")).to_have_attribute("data-state", "ready")
        return page

    yield visit
    violations = [found for page in pages if not page.is_closed() for found in page.evaluate("violations")]
    for context in contexts:
        context.close()
    assert not violations
    assert not faults
    assert not server.unknown


def ask(page: Page, text: str) -> None:
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")


def last(page: Page, selector: str) -> Locator:
    return page.locator(".turn").last.locator(selector)


def answered(page: Page, turns: int = 1) -> None:
    """Wait until so many questions are answered, or their answers ended otherwise."""
    expect(page.locator(".turn[aria-busy=false]")).to_have_count(turns)


def plan(page: Page) -> list[str]:
    """The last plan as it is read: words, expression and value in a line."""
    return [" ".join(text.split()) for text in last(page, "div > .attempt .step").all_inner_texts()]


def stored(page: Page) -> list[dict[str, Any]]:
    script = "Object.entries(localStorage).filter(([key]) => key.includes('.conversation.')).map(([, text]) => text)"
    return [json.loads(text) for text in page.evaluate(script)]


def delete(page: Page, title: str) -> None:
    entry = page.locator("#conversations li").filter(has_text=title)
    entry.hover()
    entry.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()


def fill_with_everything(server: Assistant, page: Page) -> None:
    """A conversation in which everything that the page can show is there."""
    long = "x" * 400
    steps = ("Find what all of the bikes bring together.", "120 + " * 30 + "120", "3720")
    failed = [*pieces("guidance", "1. Divide.\n2. Stop."), event("step", "Divide."), event("note", "no value " + long)]
    words = f"# Title\n{long} `{long}`\n\n- a\n  - b **c**\n\n```\n{long}\n```"
    server.scripts += [[*failed, *exact(steps, steps)], chat(words), Refusal(400, "temperature: " + long)]
    for turns, question in enumerate((long, "How many lines\nare\nthese?", "And?"), 1):
        ask(page, question)
        answered(page, turns)
    for details in page.locator("details").all():
        details.evaluate("(node) => (node.open = true)")
