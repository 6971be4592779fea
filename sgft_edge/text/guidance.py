"""A solution guidance: numbered steps that say in words how to solve a problem.

The form is that of Solution-Guidance Fine-Tuning (https://arxiv.org/abs/2412.09906):
the logic of a solution without its computation. `parse` is lenient about what a
small model writes, `violations` is strict about what a guidance should be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sgft_edge.errors import GuidanceError
from sgft_edge.text.arithmetic import format_value
from sgft_edge.text.numerals import numbers_in

MIN_STEPS = 1
MAX_STEPS = 6
MAX_STEP_WORDS = 34
MAX_WORDS = 130

_EMPHASIS = re.compile(r"\*\*|__|^[ \t]*#+(?=\s)", re.MULTILINE)
_NUMBERED = re.compile(
    r"\s*(?:step\s*(?P<step>[0-9]{1,2})\s*(?:[.):–—-]+|$)|\(?(?P<number>[0-9]{1,2})[.):]+(?![0-9]))\s*", re.IGNORECASE
)
_BULLET = re.compile(r"\s*[-*•](?:\s+|$)")
_COMPUTATION = re.compile(
    r"(?<![0-9.])[0-9.]+%?(?:\s*[+*×÷^]\s*|\s+[-−–/x]\s+)[$€£(]?[0-9.]+|[0-9)]\s*=|=\s*[-−]?[$€£(]?[0-9.]+",
    re.IGNORECASE,
)


_LINE = r"line ::= [^ \n=0-9] [^\n=]*"  # begins with a word; an equals sign would be a computation


def _grammar() -> str:
    """Nested options, so that each step's number is the only one that can stand there."""
    more = ""
    for number in range(MAX_STEPS, 1, -1):
        more = f' ("\\n{number}. " line{more})?'
    return f'root ::= "1. " line{more}\n{_LINE}\n'


GRAMMAR = _grammar()
"""GBNF that holds a guidance to its form: 1 to 6 numbered lines without an equals sign."""

STEP_GRAMMAR = f'root ::= " " line "\\n"\n{_LINE}\n'
"""GBNF for the rest of one such line after its number."""


@dataclass(frozen=True)
class Guidance:
    """The steps of a guidance, without their numbers."""

    steps: tuple[str, ...]

    @property
    def text(self) -> str:
        """The steps numbered from 1, one a line."""
        return "\n".join(f"{number}. {step}" for number, step in enumerate(self.steps, start=1))


def parse(text: str) -> Guidance:
    """Read a guidance out of model text.

    A step begins with "1.", "1)", "(1)", "1:" or "Step 1:", bold or not, and
    goes on to the next step or blank line; bullets are steps only where nothing
    is numbered. What stands before step 1 is dropped, and so is all from the
    first number that is out of order.

    Raises `GuidanceError` when there is no step or more than six.
    """
    lines = _EMPHASIS.sub("", text).splitlines()
    steps = _steps(lines, _NUMBERED) or _steps(lines, _BULLET)
    if not 1 <= len(steps) <= MAX_STEPS:
        raise GuidanceError(
            f"expected numbered steps, '1. ...' to '{MAX_STEPS}. ...' at most, found {len(steps) or 'none'}"
        )
    return Guidance(tuple(steps))


def _steps(lines: Iterable[str], marker: re.Pattern[str]) -> list[str]:
    steps: list[list[str]] = []  # the lines of each
    inside = False
    for line in lines:
        if match := marker.match(line):
            number = next((int(digits) for digits in match.groups() if digits), len(steps) + 1)
            if number == len(steps) + 1:
                steps.append([line[match.end() :].strip()])
                inside = True
            elif steps:
                break
        elif not line.strip():
            inside = False
        elif inside:
            steps[-1].append(_BULLET.sub("", line, count=1).strip())
    return [text for step in steps if (text := " ".join(filter(None, step)))]


def violations(guidance: Guidance, question: str) -> tuple[str, ...]:
    """What keeps a guidance from the form of a solution guidance; empty when nothing does.

    The form: 1 to 6 steps, at most 34 words a step and 130 in all, no
    computation, and no number in digits whose value the question does not give
    in digits or in words. Numbers in words are free: they state facts ("seven
    days") and order ("the two parts").
    """
    return tuple(_violations(guidance, question))


def _violations(guidance: Guidance, question: str) -> Iterator[str]:
    if not MIN_STEPS <= len(guidance.steps) <= MAX_STEPS:
        yield f"expected {MIN_STEPS} to {MAX_STEPS} steps, found {len(guidance.steps)}"
    words = [len(step.split()) for step in guidance.steps]
    if sum(words) > MAX_WORDS:
        yield f"expected at most {MAX_WORDS} words, found {sum(words)}"
    given = set(map(abs, numbers_in(question)))
    for number, (step, count) in enumerate(zip(guidance.steps, words, strict=True), start=1):
        if count > MAX_STEP_WORDS:
            yield f"step {number}: expected at most {MAX_STEP_WORDS} words, found {count}"
        if computation := _COMPUTATION.search(step):
            yield f"step {number}: expected no computation, found {computation[0]!r}"
        for value in dict.fromkeys(map(abs, numbers_in(step, words=False))):
            if value not in given:
                yield f"step {number}: expected only numbers of the question, found {format_value(value)}"
