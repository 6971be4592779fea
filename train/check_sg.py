"""Check solution guidance data: `python -m train.check_sg FILE... [--against TEST_SET]`.

A guidance says how to solve a problem and computes nothing (https://arxiv.org/abs/2412.09906). Each row is held to the
form, must not give its answer away, and, where it has expressions, these must lead to the answer. Rows that are near
copies of each other, or of a test set's problems, are reported as well.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from sgft_edge.answers.extraction import extract_number, is_correct
from sgft_edge.errors import EvaluationError, GuidanceError, InputError
from sgft_edge.evaluation.testsets import find_problems
from sgft_edge.reasoning.problems import read_rows
from sgft_edge.reasoning.question import Question, parse_choices
from sgft_edge.terminal import words
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import say
from sgft_edge.text.arithmetic import evaluate, format_value
from sgft_edge.text.chain import value_after
from sgft_edge.text.guidance import parse, violations
from sgft_edge.text.numerals import numbers_in

SHINGLE = 4  # words
NEAR = 0.6  # shared shingles of all, from which on two problems count as copies
EXAMPLES = 3


@dataclass(frozen=True)
class Row:
    """One problem with its guidance; `expressions` are one for each step, null where a step computes nothing."""

    file: str
    line: int
    id: str
    question: Question
    guidance: str
    answer: str | None
    expressions: tuple[str | None, ...] | None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line} ({self.id})"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one row: `kind` is a short name to count by."""

    kind: str
    place: str
    detail: str


def read_sg(path: Path) -> list[Row]:
    """The rows of a file. Raises `InputError` that names the line."""
    rows = []
    for line, row in read_rows(path):
        try:
            rows.append(_row(path.name, line, row))
        except InputError as e:
            raise InputError(f"{path}: line {line}: {e}") from e
    if not rows:
        raise InputError(f"{path}: expected problems with a guidance, found none")
    return rows


def _row(file: str, line: int, row: Mapping[str, Any]) -> Row:
    guidance, expressions = row.get("guidance"), row.get("expressions")
    if not isinstance(guidance, str) or not guidance.strip():
        raise InputError(f"expected a text 'guidance', found {guidance!r}")
    if expressions is not None and not (
        isinstance(expressions, list) and all(part is None or isinstance(part, str) for part in expressions)
    ):
        raise InputError(f"expected 'expressions' as a list of texts and nulls, found {expressions!r}")
    answer = row.get("answer")
    return Row(
        file,
        line,
        str(row.get("id", line)),
        Question(row["question"], parse_choices(row.get("choices"))),
        guidance,
        None if answer is None else str(answer),
        None if expressions is None else tuple(expressions),
    )


def faults_of(row: Row) -> Iterator[Fault]:
    """What is wrong with a row by itself."""
    try:
        guidance = parse(row.guidance)
    except GuidanceError as e:
        yield Fault("form", row.place, str(e))
        return
    if guidance.text != row.guidance:
        yield Fault("form", row.place, "expected lines '1. ...', '2. ...' and nothing else")
    for violation in violations(guidance, row.question.with_choices):
        yield Fault(_kind(violation), row.place, violation)
    if row.question.choices and row.answer not in row.question.choices:
        yield Fault("answer", row.place, f"expected one of {', '.join(row.question.choices)}, found {row.answer!r}")
    if (told := _told(row, "\n".join(guidance.steps))) is not None:
        yield Fault("answer given away", row.place, f"the guidance names {told!r}")
    if row.expressions is not None:
        if len(row.expressions) != len(guidance.steps):
            found = f"{len(row.expressions)} expressions for {len(guidance.steps)} steps"
            yield Fault("expressions", row.place, f"expected one for each step, found {found}")
        elif (wrong := _leads_astray(row)) is not None:
            yield Fault("expressions", row.place, wrong)


def _kind(violation: str) -> str:
    for word, kind in (("computation", "arithmetic"), ("numbers of", "foreign number"), ("words", "length")):
        if word in violation:
            return kind
    return "steps"


def _told(row: Row, steps: str) -> str | None:
    """The answer, where the guidance names it and the question did not: a number, or the text of the right choice."""
    if row.answer is None:
        return None
    if row.question.choices:
        text = row.question.choices.get(row.answer, "").strip()
        named = re.search(rf"\b{re.escape(text)}\b", steps, re.IGNORECASE) if len(text) > 2 else None
        asked = re.search(rf"\b{re.escape(text)}\b", row.question.text, re.IGNORECASE) if named else None
        return text if named and not asked else None
    try:
        value = evaluate(row.answer.replace(",", ""))
    except EvaluationError:
        return None
    given = {abs(number) for number in numbers_in(row.question.text)}
    told = {abs(number) for number in numbers_in(steps, words=False)}
    return row.answer if abs(value) in told - given else None


def _leads_astray(row: Row) -> str | None:
    values: list[Fraction] = []
    for expression in row.expressions or ():
        if expression is None:
            continue
        try:
            values.append(value_after(expression, values))
        except EvaluationError as e:
            return f"{expression!r}: {e}"
    if not values:
        return "expected at least one expression, found none"
    if row.answer is None or extract_number(row.answer) is None:
        return f"expected a number as the answer, found {row.answer!r}"
    found = format_value(values[-1])
    return None if is_correct(found, row.answer) else f"they lead to {found}, the answer is {row.answer}"


def copies(rows: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]] | None = None) -> Iterator[Fault]:
    """Near copies among (place, question) pairs, or between them and `others`: Jaccard similarity of word shingles.

    https://en.wikipedia.org/wiki/W-shingling
    """
    kind = "near-duplicate" if others is None else "overlap with a test set"
    index: dict[tuple[str, ...], list[int]] = defaultdict(list)
    table = list(rows) if others is None else list(others)
    shingles = [_shingles(text) for _, text in table]
    if others is not None:
        for i, parts in enumerate(shingles):
            for part in parts:
                index[part].append(i)
    for i, (place, text) in enumerate(rows):
        own = _shingles(text)
        shared: dict[int, int] = defaultdict(int)
        for part in own:
            for j in index[part]:
                shared[j] += 1
        for j, count in shared.items():
            if count / len(own | shingles[j]) >= NEAR:
                yield Fault(kind, place, f"reads like {table[j][0]}")
        if others is None:
            for part in own:
                index[part].append(i)


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}


def check(files: Sequence[Path], against: Sequence[str | Path] = ()) -> tuple[int, list[Fault]]:
    """All rows of all files together: how many there are, and what is wrong with them.

    `against` are test sets, each a JSONL file or a name (`sgft_edge.evaluation.testsets`).
    """
    rows = [row for path in files for row in read_sg(path)]
    faults = [fault for row in rows for fault in faults_of(row)]
    asked = [(row.place, row.question.text) for row in rows]
    faults += copies(asked)
    for name in against:
        known = [(f"{Path(name).name}:{problem.number}", problem.asked.text) for problem in find_problems(name)]
        if not known:
            raise InputError(f"{name}: expected problems, found none")
        faults += copies(asked, known)
    return len(rows), faults


@click.command("check_sg", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True, type=words.path)
@click.option("--against", multiple=True, metavar="SET", help="A test set that must not be in them: a file, or a name.")
@click.option("--json", "as_json", is_flag=True, help="Every fault as JSON.")
def command(files: tuple[Path, ...], against: tuple[str, ...], as_json: bool) -> int:
    """Check solution guidance data; the exit status is 1 where anything is wrong."""
    rows, faults = check(files, against)
    if as_json:
        say(json.dumps({"rows": rows, "faults": [fault.__dict__ for fault in faults]}, indent=1))
        return int(bool(faults))
    kinds: dict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        kinds[fault.kind].append(fault)
    for kind, found in sorted(kinds.items()):
        say(f"{kind}: {len(found)}")
        for fault in found[:EXAMPLES]:
            say(f"  {fault.place}: {fault.detail}")
    bad = len({fault.place for fault in faults})
    say(f"{rows} rows, {rows - bad} without fault, {bad} with")
    return int(bool(faults))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv, "check_sg")


if __name__ == "__main__":
    sys.exit(main())
