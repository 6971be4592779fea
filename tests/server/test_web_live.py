"""The assistant's page before the real server and a real model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import WATCH, Browser, browser, expect  # noqa: F401 - a fixture
from live import Assistant, assistant, wait_until

QUESTION = "A baker sells 24 rolls in the morning and half as many in the afternoon. How many are sold in the day?"


@pytest.fixture(scope="module")
def served(smollm2: Path) -> Iterator[Assistant]:
    with assistant(smollm2, adapter="auto") as server:
        yield server


@pytest.fixture
def page(browser: Browser, served: Assistant) -> Iterator[object]:  # noqa: F811
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    page = context.new_page()
    page.add_init_script(WATCH)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(served.url)
    expect(page.locator("#state[data-state=ready]")).to_be_visible()
    yield page
    assert page.evaluate("violations") == []
    assert faults == []
    context.close()


def test_a_question_is_planned_computed_and_answered(page: object) -> None:
    page.get_by_label("Strategy").select_option("exact")
    page.get_by_label("Your question").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".turn .how")).to_be_visible(timeout=60_000)
    steps = page.locator(".plan ol > li")
    assert steps.count() >= 1
    expect(page.locator(".answer")).to_contain_text("The answer is")
    expect(page.locator("#speed")).to_contain_text("tokens/s")
    expect(page.locator("#memory")).to_contain_text("MB")
    page.reload()
    expect(page.locator(".answer")).to_contain_text("The answer is")


def test_stop_frees_the_server(page: object, served: Assistant) -> None:
    page.get_by_label("Strategy").select_option("cot")
    page.get_by_label("Your question").fill("Tell me all about 12 cats and 13 dogs, please?")
    page.keyboard.press("Enter")
    wait_until(lambda: served.under_way() == 1)
    page.keyboard.press("Escape")
    wait_until(lambda: served.under_way() == 0)
    wait_until(served.all_free)
    expect(page.get_by_label("Answer anew")).to_be_visible()
