"""Calibration: the best measured strategy goes into the model's entry, and `--strategy auto` follows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

from sgft_edge import evaluate
from sgft_edge.evaluation.calibration import calibrate
from sgft_edge.reasoning.question import Question
from sgft_edge.solver import Solver
from sgft_edge.store import places
from sgft_edge.store.manifest import Entry, Manifest

PROBLEMS = [
    {"question": "What is 1 + 1?", "answer": "2"},
    {"question": "Is it so?", "answer": "A", "choices": {"A": "yes", "B": "no"}},
]


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    places.add("mine", tiny_model(tmp_path / "tiny.gguf"))
    return Manifest.load().get("mine")


def run(strategy: str, right: dict[int, bool], tokens: int, choices: bool = False) -> list[dict[str, Any]]:
    """Rows of a run by the number of the problem."""
    return [
        {
            "run": {"strategy": strategy, "given_guidance": False, "operands": "free", "plan": "first"},
            "line": line, "question": "?", "choices": {"A": "yes", "B": "no"} if choices else {}, "correct": correct,
            "reference": "1", "strategy": strategy, "solved_by": strategy, "answer": "2", "guidance": [], "steps": [],
            "text": "", "usage": {"answerer": {"decoded": tokens}}, "wall_seconds": 1.0,
        }
        for line, correct in right.items()
    ]  # fmt: skip


def test_the_most_right_answers_win_and_of_equals_the_cheapest(entry: Entry) -> None:
    numbers = {"cot": ({1: True, 2: False}, 9), "program": ({1: True, 2: True}, 9), "exact": ({1: True, 2: True}, 8)}
    letters = {"cot": ({3: False}, 5), "program": ({3: False}, 7), "exact": ({3: True}, 90)}
    found = [run(name, *numbers[name]) + run(name, *letters[name], choices=True) for name in numbers]
    said = calibrate(entry, found)
    assert (Manifest.load().get("mine").auto, Manifest.load().get("mine").auto_choices) == ("exact", "exact")
    assert said[0] == "mine: exact for questions with numbers (2/2); 2 problems say little"
    calibrate(Manifest.load().get("mine"), [rows[:2] for rows in found[:2]])  # numbers alone
    assert (Manifest.load().get("mine").auto, Manifest.load().get("mine").auto_choices) == ("program", "exact")


def test_auto_follows_what_was_measured(entry: Entry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps(row) + "\n" for row in PROBLEMS))
    options = [str(problems), "--guide", "mine", "--max-tokens", "4", "--output", str(tmp_path / "rows.jsonl")]
    assert evaluate.main([*options, "--strategy", "plan", "--calibrate"]) == 0
    assert "mine: plan for questions with choices" in capsys.readouterr().err
    with Solver.open("mine", adapter="none", context=1024) as solver:
        assert (solver.cast.auto, solver.cast.auto_choices) == ("plan", "plan")
        numeric = solver.solve("How many are 2 hens and 3 cows?")
        assert (numeric.strategy, "measured" in numeric.why) == ("plan", True)
        choice = solver.solve(Question("Is it so?", {"A": "yes", "B": "no"}))
        assert (choice.strategy, "measured" in choice.why) == ("plan", True)
        assert solver.solve("Why?").strategy == "chat"


def test_what_cannot_be_calibrated(entry: Entry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps(PROBLEMS[0]) + "\n")
    options = [str(problems), "--strategy", "direct", "--output", str(tmp_path / "rows.jsonl"), "--calibrate"]
    assert evaluate.main([*options, "--guide", str(tmp_path / "tiny.gguf")]) == 0  # the known model by its file
    other = tiny_model(tmp_path / "unnamed.gguf", seed=3)
    assert evaluate.main([*options, "--guide", str(other)]) == 2
    assert "expected a model by name" in capsys.readouterr().err
    for more in (["--given-guidance"], ["--adapter", "none"], ["--answerer", "mine,mine"], ["--strategy", "auto"]):
        assert evaluate.main([*options, "--guide", "mine", *more]) == 2
        assert "--calibrate: expected one answerer" in capsys.readouterr().err
