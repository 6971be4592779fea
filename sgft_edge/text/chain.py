"""Expressions that follow each other, the later ones with the values of those before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from sgft_edge.text.arithmetic import evaluate, format_value

UNIT_FACTS = ("1", "2", "7", "12", "24", "60", "100")  # halves and pairs, weeks, dozens, months, hours, minutes, cents
_NUMBER = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?")


def value_after(expression: str, values: Sequence[Fraction]) -> Fraction:
    """The exact value of an expression that may name the `values` of those before. Raises `EvaluationError`."""
    return evaluate(with_exact_values(expression, values))


def with_exact_values(expression: str, values: Sequence[Fraction]) -> str:
    """An expression with each rounded value of an earlier step replaced by the exact one."""
    rounded = {format_value(abs(v)): abs(v) for v in values if Fraction(format_value(v)) != v}

    def replace_rounded(match: re.Match[str]) -> str:
        exact_value = rounded.get(match[0])
        return f"({exact_value.numerator} / {exact_value.denominator})" if exact_value else match[0]

    return _NUMBER.sub(replace_rounded, expression)
