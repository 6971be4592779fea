"""The assistant's page on a phone, by keyboard, for a screen reader, in the dark."""

from __future__ import annotations

from itertools import pairwise

import pytest
from assistant import (
    BIKES,
    BIKES_SOLVED,
    Assistant,
    Gate,
    chat,
    event,
    pieces,
)
from browser import PHONE, Page, Visit, answered, ask, expect, fill_with_everything, last

OVERFLOWS = """() => [...document.querySelectorAll("html, body, main, #log, .turn, .step, .card, .sidebar, form")]
  .filter((node) => node.scrollWidth > node.clientWidth + 1 || (node.tagName === "HTML" && node.scrollHeight > 740))
  .map((node) => node.className || node.tagName)"""
SMALL = """() => [...document.querySelectorAll("button, select, input, textarea, summary")]
  .filter((node) => node.checkVisibility({ visibilityProperty: true }) && !node.classList.contains("link"))
  .filter((node) => { const { width, height } = node.getBoundingClientRect(); return width < 24 || height < 24; })
  .map((node) => node.outerHTML.slice(0, 80))"""


def test_a_phone_shows_everything_without_scrolling_aside(server: Assistant, visit: Visit) -> None:
    page = visit(viewport=PHONE, has_touch=True, is_mobile=True)
    assert page.evaluate(OVERFLOWS) == []
    fill_with_everything(server, page)
    assert page.evaluate(OVERFLOWS) == []
    assert page.evaluate(SMALL) == []
    assert page.evaluate("innerWidth") == 360
    page.get_by_role("button", name="Settings").tap()
    assert page.evaluate(OVERFLOWS) == []
    assert page.evaluate(SMALL) == []


def test_the_drawer_of_a_phone(server: Assistant, visit: Visit) -> None:
    server.scripts += [chat("Hello."), chat("Yes.")]
    page = visit(viewport=PHONE, has_touch=True)
    opener = page.get_by_role("button", name="Conversations", exact=True)
    ask(page, "Hi.")
    answered(page)
    expect(page.get_by_role("navigation")).to_have_count(0)
    for close in (
        lambda: page.keyboard.press("Escape"),
        lambda: page.locator("#backdrop").tap(position={"x": 340, "y": 300}),
        lambda: page.get_by_role("button", name="Close the list of conversations").tap(),
    ):
        opener.tap()
        expect(page.get_by_role("navigation")).to_be_visible()
        expect(page.get_by_role("button", name="New conversation")).to_be_focused()
        assert page.evaluate(OVERFLOWS) == []
        expect(page.locator("#main")).to_have_attribute("inert", "")  # while it is covered
        close()
        expect(page.get_by_role("navigation")).to_have_count(0)
        expect(opener).to_have_attribute("aria-expanded", "false")
    opener.tap()
    page.get_by_role("button", name="New conversation").tap()
    expect(page.get_by_label("Your question")).to_be_focused()
    ask(page, "Is it?")
    answered(page)
    opener.tap()
    page.get_by_role("button", name="Hi.", exact=True).tap()
    expect(page.locator(".asked")).to_have_text("Hi.")
    expect(opener).to_be_focused()


def test_the_whole_way_by_keyboard(server: Assistant, visit: Visit) -> None:
    server.scripts += [[*pieces("answer", "It is"), Gate()], chat("Hello.")]
    page = visit()
    question = page.get_by_label("Your question")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    page.keyboard.press("Enter")
    expect(question).to_be_focused()
    page.keyboard.type("What is")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("this?")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Strategy")).to_be_focused()
    page.keyboard.type("Exact")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Send")).to_be_focused()
    page.keyboard.press("Space")
    expect(question).to_be_focused()  # the button has gone
    expect(last(page, ".answer")).to_contain_text("It is")
    page.keyboard.press("Escape")
    expect(last(page, ".remark")).to_have_text("Stopped.")
    assert server.asked[0]["strategy"] == "exact"
    assert server.messages == [("user", "What is\nthis?")]

    page.keyboard.press("Control+K")
    page.keyboard.type("Hi.")
    page.keyboard.press("Enter")
    answered(page)
    page.get_by_role("button", name="New conversation").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Rename Hi.")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("Greeting")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Greeting")
    page.get_by_role("button", name="Delete Greeting").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Delete", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#conversations li")).to_have_count(1)
    expect(question).to_be_focused()


def test_what_a_screen_reader_finds(server: Assistant, visit: Visit) -> None:
    page = visit()
    fill_with_everything(server, page)
    session = page.context.new_cdp_session(page)
    roles = {"button", "textbox", "combobox", "switch", "link", "spinbutton", "navigation", "dialog", "article"}
    roles |= {"region", "DisclosureTriangle"}
    for opener in (None, "Settings"):
        if opener:
            page.get_by_role("button", name=opener).click()
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        named = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in roles
        ]
        assert len(named) > 5
        assert [role for role, name in named if not name.strip()] == []
    page.keyboard.press("Escape")
    for landmark in (
        page.get_by_role("navigation", name="Conversations"),
        page.get_by_role("main"),
        page.get_by_role("region", name="Conversation", exact=True),
        page.get_by_role("form", name="Ask"),
    ):
        expect(landmark).to_have_count(1)
    levels = [
        int(tag[1])
        for tag in page.locator("h1, h2, h3").evaluate_all(
            "(all) => all.filter((node) => node.checkVisibility()).map((node) => node.tagName)"
        )
    ]
    assert levels[0] == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))
    assert len(page.evaluate("[...document.querySelectorAll('[id]')].map((node) => node.id)")) == page.evaluate(
        "new Set([...document.querySelectorAll('[id]')].map((node) => node.id)).size"
    )


def test_only_the_finished_answer_is_announced(server: Assistant, visit: Visit) -> None:
    server.scripts.append(BIKES_SOLVED)
    page = visit()
    page.evaluate(
        """() => {
          window.said = [];
          const announcer = document.getElementById("announcer");
          new MutationObserver(() => announcer.textContent && said.push(announcer.textContent))
            .observe(announcer, { childList: true });
        }"""
    )
    ask(page, BIKES)
    answered(page)
    expect(page.locator("#announcer")).to_have_text("Answer: The answer is 525.")
    assert page.evaluate("said") in (["Being answered.", "Answer: The answer is 525."], ["Answer: The answer is 525."])
    assert page.locator("[aria-live], [role=status], [role=alert], [role=log]").count() == 1


CONTRASTS = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parts(text).slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const found = getComputedStyle(node).backgroundColor;
      if ((parts(found)[3] ?? 1) === 1) return found;
    }
  };
  const found = new Map();
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    const shown = own && node.checkVisibility({ visibilityProperty: true }) && !node.closest(".hidden, :disabled");
    if (!shown) continue;
    const [one, other] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) found.set(node.className || node.tagName, ratio.toFixed(2));
  }
  return [...found];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(server: Assistant, visit: Visit, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    assert page.evaluate(CONTRASTS) == []
    fill_with_everything(server, page)
    assert page.evaluate(CONTRASTS) == []
    page.get_by_role("button", name="Settings").click()
    assert page.evaluate(CONTRASTS) == []


def test_dark_and_light(visit: Visit) -> None:
    def behind(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page = visit(color_scheme="dark")
    assert behind(page) == "rgb(20, 23, 27)"
    switch = page.get_by_role("switch", name="Dark colours")
    expect(switch).to_be_checked()
    switch.click()
    assert behind(page) == "rgb(255, 255, 255)"
    page.reload()
    assert behind(page) == "rgb(255, 255, 255)"
    expect(switch).not_to_be_checked()
    switch.click()
    page.emulate_media(color_scheme="light")  # back to the system's choice, which is followed again
    assert behind(page) == "rgb(255, 255, 255)"


def test_nothing_moves_for_those_who_want_that(server: Assistant, visit: Visit) -> None:
    page = visit(reduced_motion="reduce", viewport=PHONE)
    server.scripts.append([*pieces("guidance", "1. Find.\n"), event("step", "Find."), Gate()])
    ask(page, BIKES)
    expect(page.locator(".step[data-state=active]")).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0
    page.get_by_role("button", name="Conversations", exact=True).click()
    assert page.evaluate("document.getAnimations().length") == 0
