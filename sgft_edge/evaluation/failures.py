"""What went wrong where an answer is wrong, as far as it can be computed.

A solution whose steps compute is judged by the smallest repair that leads to the reference answer. A repair may fit by
chance, so a class is a hint for one problem and a measure for a hundred.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sgft_edge.answers import extraction
from sgft_edge.errors import EvaluationError, GuidanceError
from sgft_edge.evaluation.row import Row
from sgft_edge.text.arithmetic import GROUPED, evaluate, format_value
from sgft_edge.text.chain import UNIT_FACTS
from sgft_edge.text.guidance import parse
from sgft_edge.text.markup import plain
from sgft_edge.text.numerals import numbers_in

CLASSES: Mapping[str, str] = {  # in the order in which they are tried
    "error": "there is no solution, the question is too long for example",
    "fell back": "the strategy failed, and another one gave a wrong answer",
    "invalid guidance": "the guidance has more than six steps",
    "no answer": "the text gives no answer",
    "miscalculated": "an equation of the free answer is false",
    "too many steps": "an earlier value was the answer",
    "wrong operation": "one other operation leads to the answer",
    "wrong operand": "one other number that was known leads to the answer",
    "too few steps": "one more operation with a known number leads to the answer",
    "another plan": "no single repair leads to the answer",
}

_TOKEN = re.compile(r"[0-9][0-9_]*\.(?![0-9_])|[0-9_]*\.?[0-9_]+(?:[eE][+-]?[0-9]+)?|[A-Za-z]\w*|//|\*\*|\S")
_EQUATION = re.compile(
    r"(?<![-+*/×÷.,0-9])(?<![-+*/×÷] )(?P<left>[0-9(][-+*/×÷().,0-9 $€£x]{0,200}[0-9)])\s*=\s*"
    r"[$€£]?(?P<right>-?[0-9][0-9,]*(?:\.[0-9]+)?)(?![0-9.,]*[0-9])(?!\s*%|\s*[-+*/×÷x]\s*[$€£(]?[0-9])"
)
_ITEM = re.compile(r"^\s*[0-9]+[.)]\s+", re.MULTILINE)
_VARIABLE = re.compile(r"x(?!\s*[0-9($€£])")
_OPERATIONS = ("+", "-", "*", "/")
_BINARY = {*_OPERATIONS, "//", "%", "**"}
_TYPOGRAPHY = str.maketrans("×÷−", "*/-")

Token = str | int  # of an expression: its text, or the number (from 0) of the step whose value it is


@dataclass(frozen=True, slots=True)
class Failure:
    """A class, and what would have mended it where one step tells."""

    kind: str
    repair: str = ""


def failure(row: Row) -> Failure | None:
    """What went wrong in an evaluation's row, None where it is correct."""
    if row["correct"]:
        return None
    if "error" in row:
        return Failure("error", row["error"])
    if row["solved_by"] != row["strategy"]:
        return Failure("fell back", "; ".join(row["notes"]))
    if row["guidance"] and not _is_guidance(row["guidance"]):
        return Failure("invalid guidance")
    if row["answer"] is None:
        return Failure("no answer")
    reference = None if row["choices"] else extraction.extract_number(row["reference"])
    expressions = [step["expression"] for step in row["steps"] if step["expression"]]
    if row["strategy"] == "exact":
        expressions = list(map(_without_commas, expressions))
    if not expressions:
        equations = list(equations_in(row["text"]))
        for left, right in equations:
            if not _holds(left, right):
                return Failure("miscalculated", f"{left} = {format_value(evaluate(left))}, not {right}")
        expressions = [_without_commas(left) for left, _ in equations]
    if reference is None or not expressions:
        return Failure("another plan")
    try:
        return _Chain(expressions, numbers_in(row["question"])).smallest_repair(reference)
    except EvaluationError:  # what was computed once is not always so in other words
        return Failure("another plan")


def equations_in(text: str) -> Iterator[tuple[str, str]]:
    """The equations of numbers in a free text, each as an expression that has a value and what is said to be it."""
    for match in _EQUATION.finditer(_ITEM.sub("", plain(text))):
        if _VARIABLE.search(match["left"]):
            continue
        left = re.sub(r"[$€£]", "", match["left"]).replace("x", "*")
        try:
            evaluate(left)
        except EvaluationError:
            continue
        if len(_TOKEN.findall(left)) > 1:
            yield left, match["right"].replace(",", "")


def _holds(left: str, right: str) -> bool:
    """Whether an equation is true; what is no whole number may be rounded."""
    value, decimals = evaluate(left), len(right.partition(".")[2])
    slack = Fraction(1, 2 * 10**decimals) if value.denominator > 1 else 0
    return abs(value - Fraction(right)) <= slack


def _is_guidance(steps: Sequence[str]) -> bool:
    try:
        return bool(parse("\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))))
    except GuidanceError:
        return False


class _Chain:
    """Expressions that build on each other's values, and the numbers that were known from the beginning."""

    def __init__(self, expressions: Sequence[str], given: Sequence[Fraction]) -> None:
        known = dict.fromkeys([*map(abs, given), *map(Fraction, UNIT_FACTS)])
        self._known = [str(number) if number.denominator == 1 else f"({number})" for number in known]
        self._steps: list[list[Token]] = []
        self._values: list[Fraction] = []
        for expression in expressions:
            self._steps.append(_tokens(expression, self._values))
            self._values.append(_value(self._steps[-1], self._values))

    def smallest_repair(self, reference: Fraction) -> Failure:
        if reference in self._values[:-1]:
            return Failure("too many steps", f"step {self._values.index(reference) + 1} has it")
        for kind, changes in (
            ("wrong operation", self._other_operations()),
            ("wrong operand", self._other_operands()),
            ("too few steps", self._further_steps()),
        ):
            for index, step in changes:
                if self._leads_to(reference, index, step):
                    return Failure(kind, f"step {index + 1}: {self._text(step)}")
        return Failure("another plan")

    def _text(self, step: list[Token]) -> str:
        parts = (format_value(self._values[token]) if isinstance(token, int) else token for token in step)
        return " ".join(parts).replace("( ", "(").replace(" )", ")")

    def _leads_to(self, reference: Fraction, index: int, step: list[Token]) -> bool:
        """Whether the answer is the reference where a step is another one."""
        values = self._values[:index]
        try:
            for tokens in (step, *self._steps[index + 1 :]):
                values.append(_value(tokens, values))
        except EvaluationError:
            return False
        return values[-1] == reference

    def _other_operations(self) -> Iterator[tuple[int, list[Token]]]:
        for index, step in enumerate(self._steps):
            for place, token in enumerate(step):
                is_sign = place == 0 or step[place - 1] in {"(", ",", *_BINARY}
                if token in _BINARY and not is_sign:
                    for operation in _OPERATIONS:
                        yield index, [*step[:place], operation, *step[place + 1 :]]
            if len(step) == 3:
                yield index, step[::-1]

    def _other_operands(self) -> Iterator[tuple[int, list[Token]]]:
        for index, step in enumerate(self._steps):
            for place, token in enumerate(step):
                if _is_number(token):
                    for operand in (*self._known, *range(index)):
                        yield index, [*step[:place], operand, *step[place + 1 :]]

    def _further_steps(self) -> Iterator[tuple[int, list[Token]]]:
        last = len(self._steps)
        for operand in (*self._known, *range(last)):
            for operation in _OPERATIONS:
                step: list[Token] = [last - 1, operation, operand]
                yield last, step
                yield last, step[::-1]


def _without_commas(expression: str) -> str:
    return re.sub(GROUPED, lambda match: match[0].replace(",", ""), expression)


def _tokens(expression: str, earlier: Sequence[Fraction]) -> list[Token]:
    """The parts of an expression, with the latest step that has the value of an operand in its place."""
    steps = {format_value(abs(value)): index for index, value in enumerate(earlier)}
    found: list[Token] = []
    for text in _TOKEN.findall(expression.translate(_TYPOGRAPHY)):
        found.append(steps.get(format_value(evaluate(text, {})), text) if _is_number(text) else text)
    return found


def _value(tokens: Sequence[Token], values: Sequence[Fraction]) -> Fraction:
    """What the tokens compute, in the language of programs, which has that of expressions in it."""
    text = "".join(f"({abs(values[token])})" if isinstance(token, int) else token for token in tokens)
    return evaluate(text, {})


def _is_number(token: Token) -> bool:
    return isinstance(token, int) or token[0] in ".0123456789"
