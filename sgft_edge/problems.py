"""Files of questions: one JSON object a line, `{"question", "id"?, "choices"?, "guidance"?, "answer"?}`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgft_edge.errors import InputError
from sgft_edge.question import Question, parse_choices


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
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _problem(number, line)
    except OSError as e:
        raise InputError(f"input: cannot read {path}: {e.strerror or e}") from e


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and the JSON objects there, each with a question. Raises `InputError` for any bad row."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield number, _row(line)
                    except InputError as e:
                        raise InputError(f"{path}: line {number}: {e}") from e
    except OSError as e:
        raise InputError(f"cannot read {path}: {e.strerror or e}") from e


def problem_of(number: int, row: Mapping[str, Any]) -> Problem:
    """The problem in an object with a text "question"; what is wrong with the rest of it is told by its `error`."""
    id_ = str(row.get("id", number))
    answer = row.get("answer")
    try:
        question = Question(row["question"], parse_choices(row.get("choices")), _text_or_none(row, "guidance"), id=id_)
    except InputError as e:
        return Problem(number, id_, None, error=str(e))
    return Problem(number, id_, question, None if answer is None else str(answer))


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
