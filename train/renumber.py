"""The same problem with other numbers: what to compute is in the words, and the numbers only stand in for themselves.

A small answerer must learn to take the right operands from the problem and the values so far. A thousand problems are
few for that, but each can be asked with any numbers: those in digits are drawn anew, in the question, the guidance and
the expressions alike, and the answer is computed. Only where it is certain which operand is which number; elsewhere a
problem stays as it is.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from sgft_edge.arithmetic import evaluate, format_value
from sgft_edge.errors import EvaluationError
from sgft_edge.exact import UNIT_FACTS, with_exact_values
from sgft_edge.numerals import numbers_in
from train.check_sg import Row, faults_of

_TRIES = 100
_OPERAND = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_PLAIN = re.compile(r"(?<![\w.,/:-])[0-9]+(?![\w/:%-]|[.,][0-9]| percent)")  # no ratio, date, part of a longer number


@dataclass(frozen=True)
class _Operand:
    """Where an operand comes from: a number of the text to be drawn anew, an earlier step's value, or neither."""

    text: str
    given: int | None = None
    step: int | None = None


def renumbered(row: Row, draw: random.Random) -> Row | None:
    """The row with other numbers, or None where they cannot be told apart or no others lead to a like answer."""
    if row.expressions is None or row.question.choices:
        return None
    free = _free(row)
    try:
        read = _read(row, free)
    except EvaluationError:
        return None
    if not free or read is None:
        return None
    for _ in range(_TRIES):
        numbers = {n: draw.randint(max(3, n // 3), max(20, 3 * n)) for n in sorted(free)}
        if (found := _computed(*read, numbers)) is not None:
            written, values = found
            changed = replace(
                row,
                question=replace(row.question, text=_rewritten(row.question.text, numbers)),
                guidance=_rewritten(row.guidance, numbers),
                expressions=tuple(written),
                answer=format_value(values[-1]),
            )
            if not any(faults_of(changed)):
                return changed
    return None


def _free(row: Row) -> set[int]:
    """The numbers that may be drawn anew: every mention of theirs in the text is plain digits."""
    plain = Counter(int(match[0]) for text in (row.question.text, row.guidance) for match in _PLAIN.finditer(text))
    steps = re.sub(r"^[0-9]+\.", "", row.guidance, flags=re.MULTILINE)
    mentions = Counter([*numbers_in(row.question.text), *numbers_in(steps)])
    units = {int(fact) for fact in UNIT_FACTS}
    return {n for n, count in plain.items() if n not in units and n > 2 and mentions[Fraction(n)] == count}


_Parts = list[str | _Operand] | None


def _read(row: Row, free: set[int]) -> tuple[list[_Parts], list[Fraction]] | None:
    """The expressions in parts and their values; None where an operand might be two things or comes from nowhere."""
    assert row.expressions is not None
    given = {abs(n) for n in numbers_in(row.question.text)}
    known = given | {n / 100 for n in given} | {Fraction(fact) for fact in UNIT_FACTS}
    values: list[Fraction] = []
    read: list[_Parts] = []
    for expression in row.expressions:
        if expression is None:
            read.append(None)
            continue
        parts: list[str | _Operand] = []
        end = 0
        for match in _OPERAND.finditer(expression):
            number = Fraction(match[0])
            steps = [i for i, value in enumerate(values) if Fraction(format_value(value)) == number]
            is_given = number in free
            if len(steps) + is_given > 1 or not (steps or number in known):
                return None
            operand = _Operand(match[0], int(number) if is_given else None, steps[0] if steps else None)
            parts += [expression[end : match.start()], operand]
            end = match.end()
        read.append([*parts, expression[end:]])
        values.append(evaluate(with_exact_values(expression, values)))
    return read, values


def _computed(
    expressions: Sequence[_Parts], before: Sequence[Fraction], numbers: Mapping[int, int]
) -> tuple[list[str | None], list[Fraction]] | None:
    """The expressions with other numbers, and their values; None where these are not positive, and whole as before."""
    values: list[Fraction] = []
    written: list[str | None] = []
    for parts in expressions:
        if parts is None:
            written.append(None)
            continue
        text = "".join(part if isinstance(part, str) else _operand(part, numbers, values) for part in parts)
        try:
            value = evaluate(with_exact_values(text, values))
        except EvaluationError:
            return None
        if value <= 0 or (1 if before[len(values)].denominator == 1 else 100) % value.denominator:
            return None
        values.append(value)
        written.append(text)
    return written, values


def _operand(part: _Operand, numbers: Mapping[int, int], values: Sequence[Fraction]) -> str:
    if part.given is not None:
        return str(numbers[part.given])
    return part.text if part.step is None else format_value(values[part.step])


def _rewritten(text: str, numbers: Mapping[int, int]) -> str:
    return _PLAIN.sub(lambda match: str(numbers.get(int(match[0]), match[0])), text)
