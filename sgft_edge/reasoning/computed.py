"""The answer to a question that is a calculation: exact, at once, and without a model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction

from sgft_edge.calculations.calculation import Calculation, calculation_in
from sgft_edge.reasoning.prompts import ANSWER
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Settings
from sgft_edge.reasoning.solution import Event, Solution, Step

ARITHMETIC = "arithmetic"
_DECIMALS = 30  # a decimal expansion that ends within them is written in full
_ROUNDED = 4  # decimals of any other, or significant digits where those would be zeros


def calculation_of(question: Question) -> Calculation | None:
    """The calculation that a question is, None where it is none or comes with choices or a guidance."""
    return None if question.choices or question.guidance is not None else calculation_in(question.text)


def computed(question: Question, settings: Settings) -> Solution | None:
    """The solution of a question that is a calculation; None where it is none, or is to be answered in another way."""
    began = time.perf_counter()
    if settings.strategy != "auto" or settings.grammar is not None:
        return None
    calculation = calculation_of(question)
    if calculation is None:
        return None
    value = calculation.value
    written = None if value is None else _in_decimals(value)
    return Solution(
        id=question.id,
        question=question.text,
        strategy=ARITHMETIC,
        why="the question is a calculation",
        solved_by=ARITHMETIC,
        steps=(Step(calculation.words, calculation.expression, written),) if written else (),
        text=calculation.trouble if value is None else _sentence(value),
        answer=written,
        truncated=False,
        seed=settings.sampling.first_draw,
        usage={},
        seconds=round(time.perf_counter() - began, 4),
        models={},
        digests={},
        device="cpu",
        offloaded_layers=0,
    )


def events_of(solution: Solution) -> Iterator[Event]:
    """What there is to show of a computed solution before it comes."""
    for step in solution.steps:
        yield Event("step", step.text)
        yield Event("expression", step.expression or "")
        yield Event("value", step.value or "")
    yield Event("answer", solution.text)


def _sentence(value: Fraction) -> str:
    ends = 10**_DECIMALS % value.denominator == 0
    return f"{ANSWER} {_in_decimals(value)}{'' if ends else f', rounded from {value}'}."


def _in_decimals(value: Fraction) -> str:
    """A value in full where its decimals end, else rounded half-even."""
    size, decimals = abs(value), _DECIMALS
    if 10**_DECIMALS % value.denominator:
        decimals = _ROUNDED
        while size * 10**decimals < 10 ** (_ROUNDED - 1):
            decimals += 1
    whole, rest = divmod(round(size * 10**decimals), 10**decimals)
    text = f"{whole}.{rest:0{decimals}d}".rstrip("0").rstrip(".")
    return f"-{text}" if value < 0 else text
