"""Self-training: which samples are kept, and a round from the samples to the next adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

from sgft_edge.reasoning.question import Question
from train import self_train, sgft
from train.check_sg import Row, read_sg

DATA = Path(__file__).parents[2] / "train" / "data" / "solution_guidance.dev.jsonl"
TEACHER = Row(
    "data.jsonl",
    1,
    "pens",
    Question("Ann has 3 boxes of 12 pens and gives 10 pens away. How many pens are left?"),
    "1. Find the pens in the boxes.\n2. Find the pens that are left.",
    "26",
    ("3 * 12", "36 - 10"),
)
OTHER_WAY = {
    "line": 1,
    "seed": 1,
    "guidance": "1. Find the pens of all the boxes.\n2. Find what is left.",
    "expressions": ["12 * 3", "36 - 10"],
    "correct": True,
}


def kept(*samples: dict[str, Any], keep: int = 4) -> list[list[str | None]]:
    return [row["expressions"] for row in self_train.choose([TEACHER], list(samples), keep)]


def test_another_way_to_the_answer_is_kept_once() -> None:
    spaced = OTHER_WAY | {"expressions": ["12*3", "36 - 10"], "seed": 2}
    assert kept(OTHER_WAY, spaced) == [["12 * 3", "36 - 10"]]


@pytest.mark.parametrize(
    "change",
    [
        {"correct": False},
        {"expressions": ["3 * 12", "36 - 10"], "guidance": TEACHER.guidance},
        {"guidance": "1. Find 3 * 12.\n2. Find what is left."},
        {"guidance": "1. Find the pens of all the boxes.\n2. Find the 26 pens left."},
        {"expressions": ["12 * 3", "36 - 9"]},
        {"expressions": ["12 * 3 - 10"]},
    ],
    ids=["wrong", "the teacher's", "computes", "gives the answer away", "leads elsewhere", "another number of steps"],
)
def test_what_is_not_kept(change: dict[str, Any]) -> None:
    assert kept(OTHER_WAY | change) == []


def test_more_problems_are_neither_copies_nor_held_out_nor_choices(tmp_path: Path) -> None:
    given = read_sg(DATA)[:3]
    held_out = read_sg(DATA)[3:5]
    new = {"id": "new", "question": "A hen lays 6 eggs a week. How many eggs do 4 hens lay in 3 weeks?", "answer": "72"}
    rows = [
        {"question": given[0].question.text.upper(), "answer": "1"},
        {"question": held_out[1].question.text, "answer": "1"},
        {"question": "Is 4 more than 3?", "choices": {"A": "yes", "B": "no"}, "answer": "A"},
        {"question": "A cow gives 9 litres a day. How many in 5 days?"},
        new,
    ]
    path = tmp_path / "more.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = self_train.unguided(str(path), given, held_out)
    assert (found.id, found.question.text, found.answer, found.expressions) == ("new", new["question"], "72", None)
    assert found.line == given[-1].line + 5
    guidance = "1. Find the eggs of all hens in a week.\n2. Find the eggs of all the weeks."
    sample = OTHER_WAY | {"line": found.line, "expressions": ["6 * 4", "24 * 3"], "guidance": guidance}
    (kept_row,) = self_train.choose([*given, found], [sample], 4)
    assert kept_row["id"] == "new-own-1"
    assert kept_row["question"] == new["question"]


def test_no_more_than_asked_for() -> None:
    ways = [OTHER_WAY | {"expressions": [f"12 * 3 + {n} - {n}", "36 - 10"], "seed": n} for n in range(1, 6)]
    assert len(kept(*ways, keep=2)) == 2


@pytest.mark.parametrize("role", ["guide+solver", "program"])
def test_a_round_goes_from_samples_to_an_adapter_and_goes_on(tmp_path: Path, role: str) -> None:
    """A tiny random model solves nothing, so that the data is the teacher's; what was sampled is not sampled again."""
    base = tiny.tiny_model(tmp_path / "tiny.gguf", vocab=tiny.byte_tokenizer())
    data = tmp_path / "data.jsonl"
    data.write_text("".join(DATA.read_text().splitlines(keepends=True)[:3]))
    config = tmp_path / "config.toml"
    config.write_text(
        f'base = "{base}"\nout = "unused"\nrole = "{role}"\ndata = "{data}"\ndev = "{data}"\nvalidity = 0\n'
        "epochs = 1.0\nrate = 0.1\n"
    )
    assert sgft.main(["--config", str(config), "--out", str(tmp_path / "first")]) == 0
    given = ["--config", str(config), "--adapter", str(tmp_path / "first"), "--out", str(tmp_path / "self")]
    more = tmp_path / "more.jsonl"
    more.write_text('{"question": "How many are 2 hens and 3 cows?", "answer": 5}\n')
    given += ["--samples", "2", "--threads", "1", "--problems", str(more)]
    assert self_train.main(given) == 0
    folder = tmp_path / "self" / "round-1"
    found = json.loads((folder / "round.json").read_text())
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    numeric = [row for row in read_sg(data) if row.expressions]
    lines = [*(row.line for row in numeric), 4]
    assert {(row["line"], row["seed"]) for row in samples} == {(line, seed) for line in lines for seed in (1, 2)}
    assert found["sampled"] == len(samples)
    assert found["correct"] == sum(row["correct"] for row in samples)
    assert len((folder / "own.jsonl").read_text().splitlines()) == found["kept"]
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert found["dev_problems"] == len(numeric)

    before = (folder / "samples.jsonl").read_text()
    assert self_train.main(given) == 0
    assert (folder / "samples.jsonl").read_text() == before


def test_what_runs_apart_ends_with_who_started_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import time\nfrom train.self_train import apart\n"
        "def work():\n    print('works', flush=True)\n    time.sleep(600)\n"
        "if __name__ == '__main__':\n    apart(work)\n"
    )
    root = Path(__file__).parents[2]
    command, env = [sys.executable, str(script)], os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "works\n"
        parent.kill()
        assert parent.communicate(timeout=30) == ("", None)  # at the end of all who can write there


@pytest.mark.parametrize(
    ("more", "complaint"),
    [(["--samples", "0"], "samples: expected at least 1"), (["--temperature", "0"], "temperature: expected more than")],
)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text('base = "smollm2"\nout = "unused"\n')
    given = ["--config", str(config), "--adapter", str(tmp_path), "--out", str(tmp_path / "out"), *more]
    assert self_train.main(given) == 2
    assert complaint in capsys.readouterr().err
