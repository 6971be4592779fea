"""The published tables are those that the kept rows give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.tables import main, read

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = {"gsm8k-test", "multiarith", "aqua-test", "commonsenseqa-dev", "strategyqa"}


def tables(source: Path, *options: str) -> dict[str, str]:
    result = CliRunner().invoke(main, [str(source), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    parts = [part.partition("**, first") for part in result.output.split("\n**")[1:]]
    return {name: rest.partition("\n\n")[2].strip() for name, _, rest in parts}


@pytest.mark.parametrize("model", ["qwen2.5-coder-0.5b", "smollm2"])
def test_the_published_tables_are_those_of_the_kept_rows(model: str) -> None:
    published = (ROOT / "docs" / "results.md").read_text()
    found = tables(ROOT / "benchmarks" / "rows" / f"{model}.jsonl.xz")
    assert found.keys() >= PUBLISHED
    for name in PUBLISHED:
        assert f"{found[name]}\n" in published, f"docs/results.md does not hold {model}'s table of {name}"


def test_rows_are_kept_without_texts_and_give_the_same_table(tmp_path: Path) -> None:
    row = {
        "line": 1,
        "question": "What is 1 + 1?",
        "reference": "2",
        "answer": "2",
        "correct": True,
        "truncated": False,
        "strategy": "panel",
        "solved_by": "panel",
        "text": "1 + 1 = 2",
        "wall_seconds": 1.0,
        "guidance": ["1. Add."],
        "steps": [],
        "notes": [],
        "choices": {},
        "usage": {"guide": {"decoded": 5}, "answerer": {"decoded": 7}},
        "run": {"strategy": "panel", "given_guidance": False},
    }
    other = row | {"line": 2, "question": "What is 2 + 2?", "answer": "5", "correct": False, "solved_by": "exact"}
    (tmp_path / "sums.panel.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(other)}\n")
    (tmp_path / "sums.cot.jsonl").touch()  # a run that has just begun
    archive = tmp_path / "rows.jsonl.xz"
    found = tables(tmp_path, "--first", "2", "--keep", str(archive))
    assert "| `panel`, shipped adapters | 1/2 | 9-91 | 0 | 12 |" in found["sums"]
    assert "Of the 1 answers that two ways of `panel` agree on, 1 are right." in found["sums"]
    assert tables(archive, "--first", "2") == found
    assert not {"text", "guidance"} & read(archive)["sums", "panel"][0].keys()
    assert "What is" not in str(read(archive))
