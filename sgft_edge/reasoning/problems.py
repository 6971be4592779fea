"""Files of questions: one JSON object a line, `{"question", "id"?, "choices"?, "guidance"?, "answer"?}`."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sgft_edge.answers.choices import key_of
from sgft_edge.answers.extraction import is_reference
from sgft_edge.errors import InputError
from sgft_edge.reasoning.question import Question, parse_choices

YES_OR_NO: Mapping[str, str] = {"yes": "yes", "no": "no"}
"""The choices that an answer of yes or no implies where a row has none."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Line `number` (from 1) of a file or a set: its question, or what is wrong, and the answer if it has one."""

    number: int
    id: str
    question: Question | None
    answer: str | None = None
    error: str | None = None

    @property
    def asked(self) -> Question:
        """The question. Raises `InputError` where the row has none."""
        if self.question is None:
            raise InputError(f"line {self.number}: {self.error}")
        return self.question


def read_problems(path: Path) -> Iterator[Problem]:
    """The rows of a JSONL file; blank lines are skipped, bad rows are told by their `error`. Raises `InputError`."""
    try:
        for number, line in _lines(path):
            yield _problem(number, line)
    except OSError as e:
        raise InputError(f"input: cannot read {path}: {e.strerror or e}") from e


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and the JSON objects there, each with a question. Raises `InputError` for any bad row."""
    try:
        for number, line in _lines(path):
            try:
                yield number, _row(line)
            except InputError as e:
                raise InputError(f"{path}: line {number}: {e}") from e
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror or e}") from e


def with_references(problems: Iterable[Problem]) -> list[Problem]:
    """The problems of a file, each answer as solutions are held to it: a quantity, yes or no, or a choice's key.

    A choice may be named by its key or its text, or by its index, counted from 0 or from 1 as the file as a whole
    proves. A problem whose answer cannot be compared for certain has an `error` instead of a question.
    """
    found = list(problems)
    first = _first_index(found)
    return [_with_reference(problem, first) for problem in found]


def _with_reference(problem: Problem, first: int | None) -> Problem:
    if problem.question is None or problem.answer is None:
        return problem
    choices = problem.question.choices
    if not choices:
        if problem.answer.lower() in YES_OR_NO or is_reference(problem.answer):
            return problem
        expected = "one number, time, ratio or list of numbers, or yes or no"
        error = f"answer: expected {expected}, found {problem.answer[:60]!r}: correct it, or give the row 'choices'"
        return replace(problem, question=None, error=error)
    key = key_of(problem.answer, choices)
    if key is None and first is not None and _is_index(problem) and 0 <= int(problem.answer) - first < len(choices):
        key = list(choices)[int(problem.answer) - first]
    if key is None:
        unproven = " (an index counts where the file has 0, or its last choice's number from 1)"
        expected = f"one of the keys {', '.join(choices)}, or the text of one choice"
        error = f"answer: expected {expected}, found {problem.answer[:60]!r}{unproven if _is_index(problem) else ''}"
        return replace(problem, question=None, error=f"{error}: correct it")
    return replace(problem, answer=key)


def _first_index(problems: Iterable[Problem]) -> int | None:
    """Whether the indexes of choices in a file begin with 0 or 1, None where it does not tell."""
    indexed = [problem for problem in problems if _is_index(problem)]
    proofs = {
        first
        for problem in indexed
        for first, proof in ((0, 0), (1, len(problem.asked.choices)))
        if int(problem.answer or "") == proof
    }
    return proofs.pop() if len(proofs) == 1 else None


def _is_index(problem: Problem) -> bool:
    """Whether an answer is a whole number that is neither key nor text of a choice."""
    asked, answer = problem.question, problem.answer
    if asked is None or not asked.choices or answer is None:
        return False
    return answer.isascii() and answer.isdecimal() and key_of(answer, asked.choices) is None


def problem_of(number: int, row: Mapping[str, Any]) -> Problem:
    """The problem in an object with a text "question"; what is wrong with the rest of it is told by its `error`."""
    id_ = str(row.get("id", number))
    answer = row.get("answer")
    try:
        question = Question(row["question"], parse_choices(row.get("choices")), _text_or_none(row, "guidance"), id=id_)
    except InputError as e:
        return Problem(number, id_, None, error=str(e))
    return Problem(number, id_, question, _answer(answer))


def _answer(given: Any) -> str | None:
    """An answer as text; JSON's truth values are yes and no."""
    if isinstance(given, bool):
        return "yes" if given else "no"
    return None if given is None else str(given).strip()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The numbered lines that are not blank, without a byte order mark."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if line.strip():
                yield number, line


def _problem(number: int, line: bytes) -> Problem:
    try:
        return problem_of(number, _row(line))
    except InputError as e:
        return Problem(number, str(number), None, error=str(e))


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as e:
        raise InputError(f"expected UTF-8, found byte 0x{e.object[e.start]:02x}: convert the file") from e
    except (ValueError, RecursionError) as e:
        raise InputError(f"expected a JSON object on one line, found {line[:40]!r}: {e}") from e
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise InputError(f"expected a JSON object with a text 'question', found {line[:40]!r}")
    return row


def _text_or_none(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{key}: expected a text, found {value!r}")
    return value
