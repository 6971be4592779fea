"""Public sets by name, through the package `datasets` from a stand-in for the hub, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import DatasetHub, repository
from servers import serving

from sgft_edge.errors import InputError
from sgft_edge.evaluation.testsets import KNOWN, find_problems

# One row of each set as the hub has it, and what is to become of it.
ROWS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gsm8k": (
        {"question": "How many are 12 boxes of 100?", "answer": "12*100=<<12*100=1200>>1200\n#### 1,200"},
        {"question": "How many are 12 boxes of 100?", "answer": "1200"},
    ),
    "multiarith": (
        {"question": " Ann has 3 pens and buys 4. How many? ", "final_ans": "7"},
        {"question": "Ann has 3 pens and buys 4. How many?", "answer": "7"},
    ),
    "svamp": (
        {"ID": "c-1", "Body": "Ann has 3 pens. ", "Question": "How many are 2 more?", "Answer": "5"},
        {"question": "Ann has 3 pens. How many are 2 more?", "answer": "5"},
    ),
    "aqua": (
        {"question": "What is 2 + 2?", "options": ["A)3", "B)4", "C)a) 5"], "rationale": "4", "correct": "B"},
        {"question": "What is 2 + 2?", "choices": {"A": "3", "B": "4", "C": "a) 5"}, "answer": "B"},
    ),
    "commonsenseqa": (
        {"question": "Where is paper?", "choices": {"label": ["A", "B"], "text": ["desk", "sea"]}, "answerKey": "A"},
        {"question": "Where is paper?", "choices": {"A": "desk", "B": "sea"}, "answer": "A"},
    ),
    "strategyqa": (
        {"question": "Is a whale a fish?", "answer": False},
        {"question": "Is a whale a fish?", "choices": {"A": "yes", "B": "no"}, "answer": "B"},
    ),
    "arc": (
        {"question": "What is hot?", "choices": {"text": ["fire", "ice"], "label": ["1", "2"]}, "answerKey": "1"},
        {"question": "What is hot?", "choices": {"1": "fire", "2": "ice"}, "answer": "1"},
    ),
}
SHOW = """
import json, sys
from sgft_edge.evaluation.testsets import find_problems
for problem in find_problems(sys.argv[1]):
    asked = problem.asked
    print(json.dumps([problem.number, problem.id, asked.text, dict(asked.choices), problem.answer]))
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run Python with the hub's address: huggingface_hub reads it when it is imported."""
    sets = {}
    for name, (row, _) in ROWS.items():
        known = KNOWN[name]
        sets[known.repository] = repository(known.configuration or "default", {known.split: [row], "train": [row] * 2})
    with serving(DatasetHub(sets)) as hub:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        private = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
        yield lambda *command, **env: subprocess.run(
            [sys.executable, *command], env=inherited | private | env, capture_output=True, text=True
        )


@pytest.mark.parametrize("name", KNOWN)
def test_rows_of_each_set(run: Run, name: str) -> None:
    expected = ROWS[name][1]
    shown = [expected["question"], expected.get("choices", {}), expected["answer"]]
    done = run("-c", SHOW, name)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[1, f"{name}-1", *shown]], done.stderr


def test_another_split_and_again_without_a_network(run: Run) -> None:
    found = run("-c", SHOW, "gsm8k:train").stdout
    assert [json.loads(line)[1] for line in found.splitlines()] == ["gsm8k-train-1", "gsm8k-train-2"]
    assert run("-c", SHOW, "gsm8k:train", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1").stdout == found


@pytest.mark.parametrize(
    ("name", "env", "complaint"),
    [
        ("gsm8k:tset", {}, "openai/gsm8k, split tset: cannot be loaded: "),
        ("gsm8k", {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}, "openai/gsm8k, split test: cannot be"),
        ("gsm9k", {}, "expected a JSONL file or one of gsm8k, multiarith"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(run: Run, name: str, env: dict[str, str], complaint: str) -> None:
    done = run("-m", "sgft_edge.cli", "evaluate", name, "--guide", "smollm2", **env)
    assert done.returncode == (2 if name == "gsm9k" else 1)
    assert done.stdout == ""
    assert complaint in done.stderr
    assert "warning" not in done.stderr.lower()
    assert len([line for line in done.stderr.splitlines() if line.strip()]) == 1, done.stderr


def test_a_file_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gsm8k").write_text('{"question": "2 + 2?", "answer": 4}\n')
    assert [(problem.id, problem.answer) for problem in find_problems("gsm8k")] == [("1", "4")]
    with pytest.raises(InputError, match=r"cannot read missing\.jsonl"):
        list(find_problems("missing.jsonl"))


def test_without_the_package_it_says_what_to_install(run: Run, tmp_path: Path) -> None:
    (tmp_path / "datasets.py").write_text("raise ImportError\n")
    done = run("-c", SHOW, "gsm8k", PYTHONPATH=str(tmp_path))
    assert "pip install 'sgft-edge[data]'" in done.stderr
