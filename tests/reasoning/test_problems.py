"""Rows of problems: what their answers are held to, and files as editors write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sgft_edge.errors import InputError
from sgft_edge.reasoning.problems import read_problems, with_references
from sgft_edge.reasoning.question import MAX_HISTORY, Question, parse_choices

LETTERS = ["bank", "library", "Store", "mall"]


def references(tmp_path: Path, *rows: dict[str, Any]) -> list[str | None]:
    """The references of a file's rows, and what is wrong with the others."""
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"question": "Which?"} | row) + "\n" for row in rows))
    return [problem.error or problem.answer for problem in with_references(read_problems(path))]


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "B.", "library", "Library", " library "])
def test_a_choice_is_named_by_its_key_or_its_text(tmp_path: Path, answer: str) -> None:
    assert references(tmp_path, {"choices": LETTERS, "answer": answer}) == ["B"]


@pytest.mark.parametrize("answer", ["E", "a library", "bank, library", 2, "2", True, 1.5])
def test_an_answer_that_is_no_choice_for_certain_is_refused(tmp_path: Path, answer: object) -> None:
    (error,) = references(tmp_path, {"choices": LETTERS, "answer": answer})
    assert error is not None
    assert error.startswith("answer: expected one of the keys A, B, C, D")


def test_indexes_count_from_where_the_file_proves(tmp_path: Path) -> None:
    rows = [{"choices": LETTERS, "answer": index} for index in (0, 2)]
    assert references(tmp_path, *rows) == ["A", "C"]
    assert references(tmp_path, *(row | {"answer": row["answer"] + 2} for row in rows)) == ["B", "D"]
    both = references(tmp_path, *({"choices": LETTERS, "answer": index} for index in (0, 4)))
    assert all("correct it" in str(found) for found in both)


def test_numbers_as_choices_are_text(tmp_path: Path) -> None:
    assert parse_choices([10, 2.5]) == {"A": "10", "B": "2.5"}
    assert references(tmp_path, {"choices": [10, 20, 30], "answer": 20}) == ["B"]
    assert references(tmp_path, {"choices": {"A": 10, "B": 20}, "answer": "20"}) == ["B"]


@pytest.mark.parametrize("answer", ["18", 18, 2.5, "1/2", "5:30 pm", "3:2", "(3, 4)", "3 and 4", "$1,200", "½", "yes"])
def test_a_quantity_or_yes_or_no_is_a_reference(tmp_path: Path, answer: object) -> None:
    assert references(tmp_path, {"answer": answer}) == [str(answer)]


@pytest.mark.parametrize("answer", ["Paris", "3 hours and 20 minutes", "", "B"])
def test_what_no_answer_can_be_compared_with_is_refused(tmp_path: Path, answer: str) -> None:
    (error,) = references(tmp_path, {"answer": answer})
    assert error is not None
    assert error.startswith("answer: expected one number")


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "1 + 1?", "answer": 2}\n', encoding="utf-8-sig")
    assert [problem.answer for problem in read_problems(path)] == ["2"]


def test_a_history_has_a_length() -> None:
    with pytest.raises(InputError, match="messages: expected at most"):
        Question("And then?", history=(("user", "a" * MAX_HISTORY), ("assistant", "b")))
