"""A guidance with its expressions as the straight-line program of strategy `program`: steps as comments, named values.

A model that was trained on code may plan better in its own language. Names come from the teacher's words; an operand
that is an earlier step's value, and certainly no other number, becomes that step's name.
"""

from __future__ import annotations

import re
from fractions import Fraction

from sgft_edge.text.arithmetic import format_value
from sgft_edge.text.chain import value_after
from sgft_edge.text.guidance import parse
from sgft_edge.text.numerals import numbers_in
from sgft_edge.text.program import run
from train.check_sg import Row

INDENT = "    "
_OPERAND = re.compile(r"(?<![\w.])[0-9]+(?:\.[0-9]+)?(?![\w.])")
_VERB = re.compile(r"^(?:find|work out|let|add|take|get|turn|convert|divide|multiply|count|see)\b", re.IGNORECASE)
_END = re.compile(r"[,:;(]|\b(?:by|from|as|since|using|with|when|if|after|then|to)\b", re.IGNORECASE)
_LEFT_OUT = {"the", "a", "an", "of", "how", "many", "much", "number", "total", "all", "each", "is", "are", "that", "s"}
_LINKS = {"in", "on", "for", "at", "and", "per", "not"}
_WORDS = 4


def program_of(row: Row) -> str:
    """The body of `solution()`, indented, whose value is the row's answer. Raises `EvaluationError` for another one."""
    assert row.expressions is not None
    given = {abs(number) for number in numbers_in(row.question.text)}
    values: list[Fraction] = []
    names: list[str] = []
    lines = []
    for step, expression in zip(parse(row.guidance).steps, row.expressions, strict=True):
        lines.append(f"{INDENT}# {step}")
        if expression is None:
            continue
        names.append(_name(step, names))
        lines.append(f"{INDENT}{names[-1]} = {_named(expression, values, names, given)}")
        values.append(value_after(expression, values))
    body = "\n".join((*lines, f"{INDENT}return {names[-1]}"))
    run(body)
    return body


def _named(expression: str, values: list[Fraction], names: list[str], given: set[Fraction]) -> str:
    def name(match: re.Match[str]) -> str:
        number = Fraction(match[0])
        steps = [i for i, value in enumerate(values) if Fraction(format_value(value)) == number]
        return names[steps[-1]] if steps and number not in given else match[0]

    return _OPERAND.sub(name, expression)


def _name(step: str, names: list[str]) -> str:
    """A name of a few words of a step, unlike those before it."""
    words = re.findall(r"[a-z]+", _END.split(_VERB.sub("", step), maxsplit=1)[0].lower().replace("'s", ""))
    kept = [word for word in words if word not in _LEFT_OUT][:_WORDS]
    while kept and kept[-1] in _LINKS:
        kept.pop()
    name = "_".join(kept or ["value"])[:40]
    return name if name not in names else f"{name}_{len(names) + 1}"
