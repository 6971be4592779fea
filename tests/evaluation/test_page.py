"""Reports of an evaluation: Markdown tables and a page that holds everything and runs nothing that a model wrote."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

from sgft_edge import evaluate
from sgft_edge.evaluation.page import page, pareto
from sgft_edge.evaluation.report import Summary, compare, digest, report, runs
from sgft_edge.evaluation.table import markdown, results

ATTACK = "<script>alert(1)</script> & \"<img src=x onerror='alert(2)'>"
PROBLEMS = [
    {"question": f"What is 1 + 1? {ATTACK}", "answer": 2, "guidance": "1. Add the numbers."},
    {"question": "Is it so?", "answer": "A", "choices": {"A": "yes", "B": "no"}, "guidance": "1. Think."},
    {"question": "What is 3 | 4?", "answer": "7", "guidance": "1. Add the numbers."},
]
VOID = {"meta", "link", "br", "img", "input", "hr"}
LINE = Summary(name="", models="", correct=0, problems=100, unparsed=0, fallbacks=0, seconds=0.0)


class Page(HTMLParser):
    """Checks that tags are balanced, and gathers tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.text.setdefault(self.open[-1], []).append(data.strip())


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of three strategies, some of them given guidance, one row an error, one answer with markup in it."""
    folder = tmp_path_factory.mktemp("report")
    model = str(tiny_model(folder / "tiny.gguf"))
    problems, output = folder / "problems.jsonl", folder / "rows.jsonl"
    problems.write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))
    options = [str(problems), "--guide", model, "--max-tokens", "6", "--output", str(output)]
    assert evaluate.main([*options, "--strategy", "direct,exact", "--given-guidance"]) == 0
    assert evaluate.main([*options, "--strategy", "cot", "--votes", "2"]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    rows[0]["text"] = ATTACK
    error = {"line", "id", "question", "choices", "reference", "run", "wall_seconds", "peak_mb"}
    rows[1] = {key: value for key, value in rows[1].items() if key in error} | {"error": ATTACK, "correct": False}
    output.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return output


@pytest.fixture(scope="module")
def found(journal: Path) -> list[list[dict[str, Any]]]:
    return runs(json.loads(line) for line in journal.read_text().splitlines())


def test_the_page_is_whole_and_shows_every_problem(found: list[list[dict[str, Any]]]) -> None:
    lines = report(found)
    text = page(found, lines, "A <title>")
    shown = Page(text)
    assert shown.text["h1"] == ["A <title>"]
    assert sum(tag == "details" for tag, _ in shown.tags) == 3
    assert sum(tag == "section" for tag, _ in shown.tags) == 9
    assert sum(tag == "circle" for tag, _ in shown.tags) == 6
    assert {line.name for line in lines} <= set(shown.text["td"])
    assert digest(found) in shown.text["code"]
    assert shown.text["p"].count(PROBLEMS[0]["question"]) == 1
    assert ATTACK in shown.text["pre"]


def test_nothing_that_was_asked_or_written_is_markup(found: list[list[dict[str, Any]]]) -> None:
    shown = Page(page(found, report(found), ATTACK))
    assert sum(tag == "script" for tag, _ in shown.tags) == 1
    assert not [tag for tag, _ in shown.tags if tag == "img"]
    assert "alert" not in "".join(shown.text["script"])
    assert not any(name.startswith("on") for _, attributes in shown.tags for name in attributes)


def test_the_page_needs_nothing_else(found: list[list[dict[str, Any]]]) -> None:
    text = page(found, report(found), "rows")
    assert not re.search(r"https?://|@import|url\(", text)
    assert not any({"src", "href"} & attributes.keys() for _, attributes in Page(text).tags)


def test_markdown_has_the_same_cells(found: list[list[dict[str, Any]]]) -> None:
    lines = report(found)
    text = markdown(lines, digest(found))
    tables = [part for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        rows = [re.split(r"(?<!\\)\|", row)[1:-1] for row in table.splitlines()]
        assert len({len(row) for row in rows}) == 1
        assert len(rows) == len(lines) + 2
    cells = [cell.strip() for cell in tables[0].splitlines()[2].split("|")[1:-1]]
    assert tuple(cells) == results(lines).rows[0]
    assert text.endswith(f"SHA-256 of the rows: {digest(found)}\n")


def test_reports_are_written_from_rows(journal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = [tmp_path / "new" / "page.html", tmp_path / "tables.md"]
    options = [word for path in reports for word in ("--report", str(path))]
    assert evaluate.main(["--from", str(journal), *options]) == 0
    assert "wrong answers:" in capsys.readouterr().out
    Page(reports[0].read_text())
    assert reports[1].read_text().startswith("| strategy |")


@pytest.mark.parametrize(
    ("name", "complaint"), [("report.pdf", "expected a file whose name ends in .html"), ("taken/a.md", "cannot write")]
)
def test_reports_that_cannot_be_written(
    journal: Path, name: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    assert evaluate.main(["--from", str(journal), "--report", str(tmp_path / name)]) == 2
    assert complaint in capsys.readouterr().err


def test_the_digest_is_of_the_rows_whatever_their_order(found: list[list[dict[str, Any]]]) -> None:
    turned = [rows[::-1] for rows in found[::-1]]
    assert digest(turned) == digest(found)
    assert digest(found[:2]) != digest(found)


def test_the_front_has_what_nothing_beats() -> None:
    lines = [
        replace(LINE, name=name, correct=correct, answerer_tokens=tokens)
        for name, correct, tokens in [
            ("dear", 40, 300), ("best", 50, 200), ("cheap", 10, 5), ("same", 50, 250), ("weak", 9, 6), ("twin", 8, 5),
        ]
    ]  # fmt: skip
    assert [line.name for line in pareto(lines, lambda line: line.decoded)] == ["cheap", "best"]


def test_runs_of_other_problems_are_not_compared(found: list[list[dict[str, Any]]]) -> None:
    assert compare(found[1], found[0]) is not None
    assert compare(found[1][:2], found[0]) is None
    assert "gained" not in results(report([found[0], found[1][:2]])).titles
