"""Straight-line programs that a model writes and this module computes exactly.

Program-aided language models (https://arxiv.org/abs/2211.10435) let the model
write Python and run it. Here the language is only what a word problem needs,
assignments and a `return`, and nothing is executed as Python: every line is
matched, and its expression evaluated as a rational by `arithmetic.evaluate`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from sgft_edge.errors import EvaluationError
from sgft_edge.text.arithmetic import evaluate, format_value

MAX_LINES = 64
MAX_LENGTH = 4_000  # characters

_FENCE = re.compile(r"^[ \t]*```(?:[ \t]*\w+)?[ \t]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_HEADER = re.compile(r"\s*def\s+\w+\s*\(.*\).*:")
_ASSIGNMENT = re.compile(
    r"\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*(?::[^=]+)?(?P<operator>\*\*|//|[-+*/%])?=(?!=)\s*(?P<expression>.*)"
)
_NAME = re.compile(r"(?<![\w.])[A-Za-z_][A-Za-z0-9_]*")
_RETURN = re.compile(r"\s*return\b\s*(?P<expression>.*)")
_PRINT = re.compile(r"\s*print\s*(?P<expression>\(.*\))")


@dataclass(frozen=True)
class Assignment:
    """One line `name = expression` and its exact value; `x += 1` has the expression `x + (1)`.

    `computed` is the expression with earlier values in place of their names, as `format_value` writes them; `comment`
    is what the lines of comment right above say.
    """

    name: str
    expression: str
    value: Fraction
    computed: str = ""
    comment: str = ""


@dataclass(frozen=True)
class ProgramResult:
    """What a program computed: every assignment in order, and its answer.

    `returned` is the expression of the `return`, with values in place of names; empty where there is none.
    """

    assignments: tuple[Assignment, ...]
    value: Fraction
    returned: str = ""


def run(source: str) -> ProgramResult:
    """Compute a straight-line program.

    The answer is the `return`ed value; else the last `print`ed one; else the
    last assignment to `answer` or `result`; else the last assignment. A code
    fence, a `def` line at the top, docstrings, comments, blank lines, type
    annotations and augmented assignments are read as Python reads them; what
    follows the `return` is not looked at.

    Raises `EvaluationError`, naming the line, for anything else, for a failing
    expression, and for more than 64 lines or 4,000 characters.
    """
    fenced = _FENCE.search(source)
    lines = _statements(fenced[1] if fenced else source)
    values: dict[str, Fraction] = {}
    assignments: list[Assignment] = []
    printed: Fraction | None = None
    for number, line, comment in lines:
        if match := _ASSIGNMENT.fullmatch(line):
            expression = match["expression"]
            if match["operator"]:
                expression = f"{match['name']} {match['operator']} ({expression})"
            value = _evaluate(expression, values, number, column=match.end() - len(expression))
            computed = _with_values(expression, values)
            values[match["name"]] = value
            assignments.append(Assignment(match["name"], expression, value, computed, comment))
        elif match := _RETURN.fullmatch(line):
            value = _evaluate(match[1], values, number, match.start(1))
            return ProgramResult(tuple(assignments), value, _with_values(match[1], values))
        elif match := _PRINT.fullmatch(line):
            printed = _evaluate(match[1], values, number, match.start(1))
        else:
            raise EvaluationError(
                f"line {number}: expected `name = expression`, `# comment` or `return expression`, "
                f"found {line.strip()[:60]!r}"
            )
    if not assignments and printed is None:
        raise EvaluationError("expected a program with an assignment or a `return`, found none")
    named = [assignment for assignment in assignments if assignment.name in ("answer", "result")]
    return ProgramResult(tuple(assignments), (named or assignments)[-1].value if printed is None else printed)


def _with_values(expression: str, values: dict[str, Fraction]) -> str:
    def shown(match: re.Match[str]) -> str:
        if match[0] not in values:
            return match[0]
        text = format_value(values[match[0]])
        return f"({text})" if text.startswith("-") else text

    return _NAME.sub(shown, expression)


def _statements(text: str) -> list[tuple[int, str, str]]:
    """The numbered lines that compute something, without comments, and the lines of comment above each."""
    lines = text.removesuffix("\n").split("\n")
    if len(lines) > MAX_LINES or len(text) > MAX_LENGTH:
        raise EvaluationError(
            f"expected a program of at most {MAX_LINES} lines and {MAX_LENGTH} characters, "
            f"found {len(lines)} and {len(text)}"
        )
    statements: list[tuple[int, str, str]] = []
    comments: list[str] = []
    quotes = ""  # what ends the docstring that a line stands in
    seen_header = False
    for number, line in enumerate(lines, start=1):
        if quotes:
            quotes = "" if quotes in line else quotes
        elif line.lstrip().startswith(('"""', "'''")):
            opening = line.strip()[:3]
            quotes = "" if opening in line.strip()[3:] else opening
        elif code := line.partition("#")[0].rstrip():
            if not statements and not seen_header and _HEADER.fullmatch(code):
                seen_header = True
            else:
                statements.append((number, code, " ".join(comments)))
                comments = []
        elif comment := line.strip().lstrip("#").strip():
            comments.append(comment)
    return statements


def _evaluate(expression: str, values: dict[str, Fraction], line: int, column: int) -> Fraction:
    """Evaluate what stands at `column` (from 0) of a line, so that an error names the place in the line."""
    try:
        return evaluate(" " * column + expression, values)
    except EvaluationError as error:
        raise EvaluationError(f"line {line}, {error}") from None
