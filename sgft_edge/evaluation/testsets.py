"""Public sets of problems by name, from the Hugging Face hub through the package `datasets`.

`gsm8k` is the split that results are published for; `gsm8k:train` is another one. What was loaded once is cached by
`datasets` and found again without a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgft_edge.errors import InputError
from sgft_edge.evaluation.hub_rows import load_rows
from sgft_edge.reasoning.problems import Problem, problem_of, read_problems

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PublicSet:
    """Where a set lies on the hub, its usual split, and how one of its rows becomes one of ours."""

    repository: str
    configuration: str | None
    split: str
    read: Callable[[Row], dict[str, Any]]


def _final(row: Row) -> dict[str, Any]:
    return {"question": row["question"], "answer": row["answer"].rpartition("####")[2].strip().replace(",", "")}


def _multiarith(row: Row) -> dict[str, Any]:
    return {"question": row["question"].strip(), "answer": row["final_ans"]}


def _svamp(row: Row) -> dict[str, Any]:
    return {"question": f"{row['Body'].strip()} {row['Question'].strip()}", "answer": row["Answer"]}


def _aqua(row: Row) -> dict[str, Any]:
    options = (option.partition(")") for option in row["options"])
    choices = {key.strip("( "): text.strip() for key, _, text in options}
    return {"question": row["question"], "choices": choices, "answer": row["correct"]}


def _yes_or_no(row: Row) -> dict[str, Any]:
    return {
        "question": row["question"],
        "choices": {"A": "yes", "B": "no"},
        "answer": "A" if str(row["answer"]).lower() in ("yes", "true") else "B",
    }


def _labelled(row: Row) -> dict[str, Any]:
    choices = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
    return {"question": row["question"], "choices": choices, "answer": row["answerKey"]}


KNOWN: Mapping[str, PublicSet] = {
    "gsm8k": PublicSet("openai/gsm8k", "main", "test", _final),
    "multiarith": PublicSet("ChilleD/MultiArith", None, "test", _multiarith),
    "svamp": PublicSet("ChilleD/SVAMP", None, "test", _svamp),
    "aqua": PublicSet("deepmind/aqua_rat", "raw", "test", _aqua),
    "commonsenseqa": PublicSet("tau/commonsense_qa", None, "validation", _labelled),
    "strategyqa": PublicSet("ChilleD/StrategyQA", None, "test", _yes_or_no),
    "arc": PublicSet("allenai/ai2_arc", "ARC-Challenge", "test", _labelled),
}


def find_problems(source: str | Path) -> Iterator[Problem]:
    """The problems of a JSONL file or of a known set. Raises `InputError`, and `SgftError` where the hub fails."""
    name, _, split = str(source).partition(":")
    path = Path(source)
    if path.exists() or path.suffix == ".jsonl":
        return read_problems(path)
    if name not in KNOWN:
        raise InputError(f"input: expected a JSONL file or one of {', '.join(KNOWN)}, found {str(source)!r}")
    known = KNOWN[name]
    rows = load_rows(known.repository, known.configuration, split or known.split)
    label = str(source).replace(":", "-")
    return (problem_of(n, {"id": f"{label}-{n}"} | known.read(row)) for n, row in enumerate(rows, start=1))
