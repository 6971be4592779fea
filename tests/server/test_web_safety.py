"""The assistant's page runs nothing that a model, a user or a damaged storage holds, and shows all of it as text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from assistant import (
    WEB,
    Assistant,
    Refusal,
    chat,
    computed,
    event,
    pieces,
    solution,
)
from browser import Visit, answered, ask, delete, expect, last, stored

IMAGE = '<img src="x" onerror="pwned=1">'
ATTACKS = f"""\
{IMAGE} <script>pwned=1</script> <svg onload="pwned=1"><a href="javascript:pwned=1">x</a></svg>
<iframe srcdoc="<script>parent.pwned=1</script>"></iframe> </textarea></title>{IMAGE} <style>*{{display:none}}</style>

# {IMAGE}

**{IMAGE}** *{IMAGE}* `{IMAGE}` [link](javascript:pwned=1) ![image](x"onerror="pwned=1) <javascript:pwned=1>

- {IMAGE}
  1. [x]: javascript:pwned=1
     ```html" onload="pwned=1
     {IMAGE}

```
</code></pre>{IMAGE}
```
&lt;img src=x onerror=pwned=1&gt; ${{pwned=1}} {{{{pwned=1}}}} \\x3cimg src=x onerror=pwned=1\\x3e"""
ELEMENTS = """
() => {
  const tags = "ARTICLE SECTION DIV H2 H3 H4 H5 H6 P PRE CODE EM STRONG SPAN BDI OL UL LI DL DT DD DETAILS SUMMARY";
  const allowed = new Set([...tags.split(" "), "BUTTON", "svg", "path", "rect"]);
  const own = "class|id|dir|role|hidden|type|title|start|tabindex|open|aria-.+|data-(state|id)";
  const attributes = new RegExp(`^(${own}|viewBox|d|x|y|width|height|rx)$`);
  const found = [];
  for (const node of document.querySelectorAll("#turns *, #conversations *, #title *, #announcer *, .banner *")) {
    if (!allowed.has(node.tagName)) found.push(node.tagName);
    for (const { name } of node.attributes) if (!attributes.test(name)) found.push(`${node.tagName} ${name}`);
  }
  if (document.scripts.length !== 2) found.push("script");
  if (document.querySelectorAll("a, img, iframe, style, object, embed, base, meta").length !== 5) found.push("others");
  return found;
}
"""


@pytest.mark.parametrize("bypass_csp", [False, True])
def test_texts_stay_texts(server: Assistant, visit: Visit, bypass_csp: bool) -> None:
    steps = [{"text": ATTACKS, "expression": IMAGE, "value": IMAGE}]
    everything = [
        *pieces("guidance", f"1. {IMAGE}\n2. {IMAGE}", 5),
        *computed((ATTACKS, IMAGE, IMAGE)),
        event("note", IMAGE),
        event("note", ATTACKS),
        *pieces("program", ATTACKS, 50),
        *pieces("answer", ATTACKS, 50),
        solution(IMAGE, solved_by=IMAGE, strategy=IMAGE, why=ATTACKS, steps=steps, guidance=[IMAGE]),
        event(IMAGE, IMAGE),
    ]
    server.scripts += [everything, Refusal(400, ATTACKS)]
    server.models = {IMAGE: [IMAGE, "auto"]}
    page = visit(bypass_csp=bypass_csp)
    ask(page, ATTACKS)
    answered(page)
    ask(page, IMAGE)
    answered(page, 2)
    page.locator("#conversations li").hover()
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill(IMAGE)
    page.get_by_role("button", name="Rename", exact=True).click()
    for _ in range(2):
        for details in page.locator("details").all():
            details.evaluate("(node) => (node.open = true)")
        assert page.locator(".turn .asked").first.text_content() == ATTACKS
        assert page.locator("#title").text_content() == IMAGE
        assert page.locator("#turns").text_content().count(IMAGE) > 15
        assert page.evaluate(ELEMENTS) == []
        page.wait_for_timeout(100)  # an image that failed would have said so
        assert page.evaluate("typeof pwned") == "undefined"
        page.reload()
        answered(page, 2)
    page.locator("#conversations li").hover()
    page.get_by_role("button", name=f"Delete {IMAGE}").click()
    expect(page.locator("#delete-what")).to_have_text(IMAGE)
    assert page.evaluate("typeof pwned") == "undefined"


@pytest.mark.parametrize("bypass_csp", [False, True])
def test_a_damaged_storage_harms_nothing(server: Assistant, visit: Visit, bypass_csp: bool) -> None:
    reply = {
        "state": IMAGE,
        "asked": 5,
        "attempts": [7, None, {"plan": 3, "steps": [None, {"text": IMAGE, "value": {"a": 1}}], "answer": ATTACKS}],
        "solution": {"seconds": "much", "why": IMAGE},
        "usage": "none",
    }
    odd = {
        "title": IMAGE,
        "updated": "never",
        "turns": [{"question": IMAGE, "reply": reply}, {"question": "x", "reply": "y"}],
    }
    sound = {"title": ["x"], "turns": [{"question": "Sound?", "reply": {"state": "failed", "error": 4}}]}
    kept = {
        "sgft-edge.conversation.a": '{"turns": [',
        "sgft-edge.conversation.b": "null",
        "sgft-edge.conversation.c": '{"turns": 5, "title": {}}',
        "sgft-edge.conversation.d": '{"turns": [null]}',
        "sgft-edge.conversation." + IMAGE: json.dumps(odd),
        "sgft-edge.conversation.e": json.dumps(sound),
        "sgft-edge.settings": '{"temperature": "hot", "seed": -4, "strategy": {}, "system": 5, "model": ["<img>"]}',
        "sgft-edge.theme": IMAGE,
        "another's": "{",
    }
    server.scripts.append(chat("Hello."))
    page = visit(bypass_csp=bypass_csp)
    page.evaluate(
        "(kept) => { for (const [key, text] of Object.entries(kept)) localStorage.setItem(key, text); }", kept
    )
    page.reload()
    expect(page.locator("#notice")).to_contain_text("4 conversations could not be read")
    assert page.locator("#conversations .open").all_inner_texts() == [IMAGE, "Sound?"]
    for entry in page.locator("#conversations .open").all():
        entry.click()
        assert page.evaluate(ELEMENTS) == []
    page.keyboard.press("Control+K")
    ask(page, "Hi.")
    answered(page)
    assert server.asked[-1].keys() == {"model", "strategy", "messages", "stream", "stream_options"}
    page.reload()
    expect(page.locator("#notice")).to_be_hidden()  # said once
    assert page.evaluate("typeof pwned") == "undefined"


def test_a_full_storage_is_said_and_room_is_used(server: Assistant, visit: Visit) -> None:
    server.scripts += [chat("Hello."), chat("Hello again.")]
    page = visit()
    ask(page, "First? " + "x" * 3000)
    answered(page)
    page.evaluate(
        """() => {
          for (let size = 2 ** 20, n = 0; size >= 1; ) {
            try { localStorage.setItem(`other.${n++}`, "x".repeat(size)); } catch { size = Math.floor(size / 2); }
          }
        }"""
    )
    page.keyboard.press("Control+K")
    ask(page, "Second?")
    answered(page)
    expect(last(page, ".prose")).to_have_text("Hello again.")
    expect(page.locator("#notice")).to_contain_text("no room to keep the conversation")
    page.get_by_role("button", name="Dismiss").click()
    delete(page, "First?")
    expect(page.locator("#conversations li")).to_have_count(1)
    assert [one["title"] for one in stored(page)] == ["Second?"]


def test_a_browser_that_lets_nothing_be_kept(server: Assistant, visit: Visit) -> None:
    server.scripts.append(chat("Hello."))
    forbids = "{ get() { throw new DOMException('no', 'SecurityError'); } }"
    define = "".join(f"Object.defineProperty(window, '{name}Storage', {forbids});" for name in ("local", "session"))
    page = visit(before=define)
    ask(page, "Hi.")
    answered(page)
    expect(last(page, ".prose")).to_have_text("Hello.")
    page.get_by_role("switch", name="Dark colours").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


MARKDOWN = {
    "one\ntwo\n\nthree": "<p>one\ntwo</p><p>three</p>",
    "a **b** *c* `d*e*`": "<p>a <strong>b</strong> <em>c</em> <code>d*e*</code></p>",
    "**f *g* h**": "<p><strong>f <em>g</em> h</strong></p>",
    "2*3*4 = 24, 2 ** 3 = 8, 2**3**2, (1)*(2)*(3), 5 * 6 * 7": None,
    "* a\n* b": "<ul><li>a</li><li>b</li></ul>",
    "text\n- a\n- b\n\nmore": "<p>text</p><ul><li>a</li><li>b</li></ul><p>more</p>",
    "3. a\n4. b": '<ol start="3"><li>a</li><li>b</li></ol>',
    "1. a\n\n2. b": '<ol start="1"><li>a</li><li>b</li></ol>',
    "- a\n  - b\n- d": "<ul><li><p>a</p><ul><li>b</li></ul></li><li>d</li></ul>",
    "- a\n  1. b": '<ul><li><p>a</p><ol start="1"><li>b</li></ol></li></ul>',
    "In\n1990. It was.": "<p>In\n1990. It was.</p>",
    "## T **b** ##": "<h5>T <strong>b</strong></h5>",
    "```py\na <b>\n\n*c*\n```\nd": '<pre tabindex="0"><code>a &lt;b&gt;\n\n*c*</code></pre><p>d</p>',
    "~~~\nnever closed": '<pre tabindex="0"><code>never closed</code></pre>',
    r"\(x^2\) and \[y_1 * z\] \*no\*": r"<p>\(x^2\) and \[y_1 * z\] *no*</p>",
    "unclosed **bold and `code": None,
    "[a](https://b.example) <https://c.example>": "<p>[a](https://b.example) &lt;https://c.example&gt;</p>",
    "": "",
}


def test_markdown_and_what_is_none(visit: Visit) -> None:
    page = visit()
    script = """async (text) => {
      const { markdown } = await import("/web/markdown.js");
      const page = document.createElement("div");
      page.append(markdown(text));
      return page.innerHTML.replaceAll(' dir="auto"', "");
    }"""
    for text, wanted in MARKDOWN.items():
        assert page.evaluate(script, text) == (f"<p>{text}</p>" if wanted is None else wanted)


def test_no_text_takes_long_to_read_as_markdown(visit: Visit) -> None:
    script = """async (text) => {
      const { markdown } = await import("/web/markdown.js");
      const began = performance.now();
      markdown(text);
      return performance.now() - began;
    }"""
    page = visit()
    many = ("- " * 5000 + "x", "*" * 9999, "**a " * 9999, "`" * 9999, "- a" + "\n" * 90_000, "- a\n" * 20_000)
    for text in (*many, "\n".join(" " * n + "- x" for n in range(400))):
        assert page.evaluate(script, text) < 1000  # milliseconds


# The sources


SOURCES = sorted(path for path in WEB.iterdir() if path.suffix in (".html", ".js", ".css", ".svg"))
SINKS = (
    "innerHTML|outerHTML|insertAdjacent|document.write|DOMParser|parseFromString|createContextualFragment|setHTML|srcdoc"
    r"|\beval\b|\bFunction\b|javascript:|\.href\b|\.src\b|location\s*=|importScripts|@import|url\("
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_sources_hold_no_way_to_parse_a_text_and_no_other_address(path: Path) -> None:
    text = path.read_text()
    assert re.findall(SINKS, text) == []
    addresses = re.findall(
        r"(?:https?:)?//[\w.]+[^\s\"')]*", re.sub(r"^\s*//.*$|/\*.*?\*/", "", text, flags=re.MULTILINE)
    )
    assert [found for found in addresses if found.startswith(("http", "//")) and "." in found] == (
        ["http://www.w3.org/2000/svg"] if path.suffix == ".svg" else []
    )


def test_the_page_holds_nothing_that_its_policy_forbids() -> None:
    text = (WEB / "index.html").read_text()
    assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)|<base|<iframe|<form[^>]* action", text) == []
    named = set(re.findall(r'(?:src|href)="web/([^"]+)"', text))
    for path in SOURCES:
        named |= set(re.findall(r'(?:from|import) "\./([^"]+)"', path.read_text()))
    assert named == {path.name for path in SOURCES} - {"index.html"}
