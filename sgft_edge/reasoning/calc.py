"""Strategy `calc`: a chain of thought in which the runtime computes every equation.

The model thinks aloud in its own way. Where it writes an equals sign after an expression of numbers, the value is
computed exactly and written for it, and the model goes on from there: a calculator, as in Cobbe et al. (2021),
https://arxiv.org/abs/2110.14168, without its training.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from fractions import Fraction

from sgft_edge.errors import EvaluationError
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.backend import Completion, Request
from sgft_edge.reasoning.task import ANSWER_ROOM, LETTER_TOKENS, Task, Writing, settle
from sgft_edge.text.arithmetic import evaluate, format_value

_LEAD = 6  # tokens in which a value must begin after its equals sign
_DIGITS = tuple("0123456789-")
_SEGMENT = 300  # characters before an equals sign that may belong to its expression

_UNITS = re.compile(r"(?:/\s*)?\\(?:text|textbf|mathrm|mathbf)\s*\{[^{}]*\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_REWRITTEN = [
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"\\times|\\cdot|×|(?<=[0-9)])\s*x\s*(?=[0-9($\\])", "*"),
        (r"\\div|÷", "/"),
        (r"−", "-"),
        (r"\\left|\\right|\\[()\[\],!;$]|[$€£`]|\*\*", ""),
        (r"\\?%(?:\s+of\b)?(?=\s*[0-9(])", "/100*"),
        (r"\\?%", "/100"),
    )
]
_VARIABLE = re.compile(r"[0-9)][A-Za-z]|_|\b[A-Za-z]\b(?!/)")
_WORDS = re.compile(r"(?:/\s*|\bper\s+)?[A-Za-z][A-Za-z'’.-]*")
_EXPRESSION = re.compile(r"[-+*/().,0-9 ]+$")
_BEGINNINGS = ("(", ".", *"0123456789")  # what begins with an operator lost a variable before it
_OPERATION = re.compile(r"[0-9)]\s*[-+*/]\s*[-(]*[0-9]")


def calc(task: Task) -> Writing:
    """A chain of thought with exact values."""
    text, truncated = yield from _think(task)
    return (yield from settle(task, "calc", text.strip(), truncated))


def _think(task: Task) -> Generator[Request, Completion, tuple[str, bool]]:
    """The chain of thought, and whether it ran into the limit on tokens."""
    turn, show, sampling = task.answerer, task.show("answer"), task.settings.sampling
    limit, letter = task.settings.max_tokens, LETTER_TOKENS if task.question.choices else 0
    turn.read(prompts.cot(task.question), 2 * min(limit, ANSWER_ROOM) + letter)
    left = min(limit, (turn.room - letter) // 2)  # values take up to as much
    text, stop = "", task.settings.stop

    def write(known: str) -> None:
        nonlocal text
        turn.force(known)
        show(known)
        text += known

    while left > 0:
        written = yield turn.write(left, ("=", *stop), sampling=sampling, on_text=show)
        text, left = text + written.text, left - written.tokens
        if written.ending != "=":
            return text, written.finish == "length"
        write("=")
        value = value_before(text)
        if value is None or left <= 0:
            continue
        lead = yield turn.write(min(_LEAD, left), ("\n", "=", *_DIGITS, *stop), sampling=sampling, on_text=show)
        text, left = text + lead.text, left - lead.tokens
        if lead.finish == "end" or lead.ending in stop:
            return text, False
        if lead.ending:
            write(format_value(value) if lead.ending in _DIGITS else lead.ending)
    return text, True


def value_before(text: str) -> Fraction | None:
    """The value of the expression of numbers that stands before an equals sign at the end, None where there is none.

    Currency and units count for nothing, LaTeX for what it prints; an expression with a variable in it has no value.
    """
    segment = text.removesuffix("=")[-_SEGMENT:].rpartition("\n")[2]
    segment = re.split(r"[=≈:;?!]|\.\s|,\s|\\\[|\\\(", segment)[-1]
    segment = _UNITS.sub("", segment)
    while (simpler := _FRACTION.sub(r"((\1)/(\2))", segment)) != segment:
        segment = simpler
    for pattern, plain in _REWRITTEN:
        segment = pattern.sub(plain, segment)
    if _VARIABLE.search(segment):
        return None
    found = _EXPRESSION.search(_WORDS.sub("", segment))
    expression = found[0].strip() if found else ""
    if expression[:1] not in _BEGINNINGS or not _OPERATION.search(expression):
        return None
    try:
        return evaluate(expression)
    except EvaluationError:
        return None
