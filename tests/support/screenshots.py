"""The pictures of the assistant's page in the documents, taken anew from the page as it is.

usage: python tests/support/screenshots.py [--out docs/images]

The page is shown before the tests' stand-in for the server, so that the pictures need no model and are the same
everywhere but for the fonts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from assistant import Assistant, chat, exact
from browser import CHROMIUM
from playwright.sync_api import Page, sync_playwright
from servers import serving

IMAGES = Path(__file__).parents[2] / "docs" / "images"
CONVERSATIONS = (
    (("Which of these is not a prime number: 7, 9, 11?", chat("**9** is not: it is 3 times 3.")),),
    (
        (
            "A recipe for 4 people takes 300 g of rice. How much rice do 7 people need?",
            exact(("Find the rice for one person.", "300 / 4", "75"), ("Find the rice for 7 people.", "75 * 7", "525")),
        ),
    ),
    (
        (
            "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?",
            exact(
                ("Find the money from all bikes.", "5 * 120", "600"),
                ("Find what is left after paying for the parts.", "600 - 75", "525"),
            ),
        ),
        (
            "And if a third of that goes to the landlord?",
            exact(
                ("Find what is left after paying for the parts.", "5 * 120 - 75", "525"),
                ("Find the landlord's third.", "525 / 3", "175"),
                ("Find what the shop keeps.", "525 - 175", "350"),
            ),
        ),
    ),
)


def converse(page: Page, server: Assistant) -> None:
    """Hold all conversations; the last one stays open."""
    for conversation in CONVERSATIONS:
        page.keyboard.press("Control+K")
        for turn, (question, script) in enumerate(conversation, 1):
            server.scripts.append(script)
            page.get_by_label("Your question").fill(question)
            page.keyboard.press("Enter")
            page.locator(".turn").nth(turn - 1).locator(".how").wait_for()
    page.get_by_label("Your question").blur()


def main(argv: Sequence[str] | None = None) -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=IMAGES, help="the folder of the pictures")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    with serving(Assistant()) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, width, height, scale, scheme in (
            ("desktop", 1200, 970, 1, "light"),
            ("phone", 360, 740, 2, "dark"),
        ):
            page = browser.new_page(
                viewport={"width": width, "height": height}, device_scale_factor=scale, color_scheme=scheme
            )
            page.goto(server.url)
            page.locator("#state[data-state=ready]").wait_for()
            converse(page, server)
            page.screenshot(path=out / f"assistant-{name}.png")
            page.close()
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
