"""Exact arithmetic: the value of an expression in model text, as a rational, and its text.

A number is a `fractions.Fraction` everywhere, so that `1 / 3 * 3` is 1. Nothing
here executes what a model wrote: `evaluate` has a tokenizer and a
precedence-climbing parser of its own, with bounds on length, depth and size.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NoReturn

from sgft_edge.errors import DivisionByZero, EvaluationError, NumberTooLarge

MAX_LENGTH = 2_000  # characters of one expression
MAX_DEPTH = 50  # parentheses, calls, signs and powers inside each other
MAX_SIZE = 10**60  # of a numerator or a denominator
MAX_EXPONENT = 200  # of `**` and of scientific notation: 2**200 passes MAX_SIZE already

FUNCTIONS = ("abs", "cbrt", "float", "int", "max", "min", "round", "sqrt")

# Regular expressions of numbers as people write them; GROUPED has thousands separators.
GROUPED = r"[0-9]{1,3}(?:,[0-9]{3}){1,20}(?![0-9])(?:\.[0-9]+)?"
PLAIN_NUMBER = rf"{GROUPED}|[0-9]+\.?[0-9]*|\.[0-9]+"
_PROGRAM_NUMBER = r"(?:[0-9]+(?:_[0-9]+)*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_PLAIN_TOKEN = re.compile(rf"(?P<number>{PLAIN_NUMBER})|(?P<mark>[-+*/()])")
_PROGRAM_TOKEN = re.compile(
    rf"(?P<number>{_PROGRAM_NUMBER})|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>//|\*\*|[-+*/%(),])"
)
_TYPOGRAPHY = str.maketrans("×÷−", "*/-")
_BINDING = {"+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "**": 4}
_SIGN_BINDING = 3  # -2 ** 2 is -(2 ** 2), as in Python


def evaluate(text: str, names: Mapping[str, Fraction] | None = None) -> Fraction:
    """The exact value of an arithmetic expression.

    Without `names`: `+ - * / ( )`, signs, integers, decimals and thousands
    separators in groups of three. With `names` (even empty), the language of
    programs: these names, `// % **` with Python's meaning, scientific notation,
    digits grouped by underscores, and the functions in `FUNCTIONS` (`round`
    is half-even on the exact value, `float` changes nothing, `sqrt` and `cbrt`
    take what has a rational root); no thousands separators, since a comma
    separates arguments.

    Raises `EvaluationError`, with a column counted from 1, where the text is no
    such expression, divides by zero (`DivisionByZero`), or passes one of the
    bounds above (`NumberTooLarge` for those of numbers).
    """
    if len(text) > MAX_LENGTH:
        raise EvaluationError(f"expected an expression of at most {MAX_LENGTH} characters, found {len(text)}")
    parser = _Parser(list(_tokens(text, _PLAIN_TOKEN if names is None else _PROGRAM_TOKEN)), names or {})
    value = parser.expression()
    if parser.token.kind != "end":
        _fail(parser.token.column, f"expected an operator or the end, found {parser.token}")
    return value


@dataclass(frozen=True)
class _Token:
    kind: str  # number, name, mark or end
    text: str
    column: int

    def __str__(self) -> str:
        return repr(self.text) if self.text else "the end"


def _tokens(text: str, pattern: re.Pattern[str]) -> Iterator[_Token]:
    text = text.translate(_TYPOGRAPHY)
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = pattern.match(text, position)
        if match is None:
            _fail(position + 1, f"expected a number or an operator, found {text[position]!r}")
        yield _Token(match.lastgroup or "", match.group(), position + 1)
        position = match.end()
    yield _Token("end", "", len(text) + 1)


def _fail(column: int, message: str, error: type[EvaluationError] = EvaluationError) -> NoReturn:
    raise error(f"column {column}: {message}")


@dataclass
class _Parser:
    """Precedence climbing over a list of tokens, computing as it goes."""

    tokens: list[_Token]
    names: Mapping[str, Fraction]
    position: int = field(default=0, init=False)
    depth: int = field(default=0, init=False)

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def advance(self) -> _Token:
        token = self.token
        self.position += 1
        return token

    def expect(self, mark: str) -> None:
        if self.token.text != mark:
            _fail(self.token.column, f"expected {mark!r}, found {self.token}")
        self.position += 1

    def expression(self, binding: int = 1) -> Fraction:
        """Operands joined by operators that bind at least as tightly as `binding`."""
        value = self.operand()
        while (power := _BINDING.get(self.token.text, 0)) >= binding:
            operator = self.advance()
            right = self.nested(power) if operator.text == "**" else self.expression(power + 1)
            value = _bounded(_apply(operator, value, right), operator)
        return value

    def nested(self, binding: int = 1) -> Fraction:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            _fail(self.token.column, f"expected at most {MAX_DEPTH} levels of nesting")
        value = self.expression(binding)
        self.depth -= 1
        return value

    def operand(self) -> Fraction:
        token = self.token
        if token.kind == "number":
            return _number(self.advance())
        if token.kind == "name":
            return self.name()
        if token.text in ("+", "-"):
            self.advance()
            value = self.nested(_SIGN_BINDING)
            return -value if token.text == "-" else value
        if token.text == "(":
            self.advance()
            value = self.nested()
            self.expect(")")
            return value
        _fail(token.column, f"expected a number or '(', found {token}")

    def name(self) -> Fraction:
        token = self.advance()
        if token.text in FUNCTIONS and self.token.text == "(":
            self.advance()
            arguments = [self.nested()]
            while self.token.text == ",":
                self.advance()
                arguments.append(self.nested())
            self.expect(")")
            return _bounded(_call(token, arguments), token)
        if token.text in self.names:
            return self.names[token.text]
        near = difflib.get_close_matches(token.text, [*self.names, *FUNCTIONS], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.names) or 'none'}"
        _fail(token.column, f"unknown name {token.text!r}; {hint}")


def _number(token: _Token) -> Fraction:
    digits, _, exponent = token.text.lower().replace(",", "").replace("_", "").partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        _fail(token.column, f"expected an exponent of at most {MAX_EXPONENT}, found {exponent}", NumberTooLarge)
    return _bounded(Fraction(digits) * Fraction(10) ** int(exponent or 0), token)


def _apply(operator: _Token, left: Fraction, right: Fraction) -> Fraction:
    match operator.text:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "**":
            if right.denominator != 1:
                _fail(operator.column, "expected a whole exponent")
            if abs(right) > MAX_EXPONENT and left not in (-1, 0, 1):
                _fail(operator.column, f"expected a whole exponent of at most {MAX_EXPONENT}", NumberTooLarge)
            if left or right >= 0:
                return left ** int(right)
        case "/" if right:
            return left / right
        case "//" if right:
            return Fraction(left // right)
        case "%" if right:
            return left % right
    _fail(operator.column, "division by zero", DivisionByZero)


def _call(name: _Token, arguments: list[Fraction]) -> Fraction:
    match name.text, arguments:
        case "abs", [value]:
            return abs(value)
        case "float", [value]:
            return value
        case "int", [value]:
            return Fraction(int(value))
        case "max", [_, _, *_]:
            return max(arguments)
        case "min", [_, _, *_]:
            return min(arguments)
        case "round", [value]:
            return Fraction(round(value))
        case "round", [value, digits] if digits.denominator == 1 and abs(digits) <= MAX_EXPONENT:
            return round(value, int(digits))
        case "sqrt", [value]:
            return _root(value, 2, name)
        case "cbrt", [value]:
            return _root(value, 3, name)
    _fail(name.column, f"{name.text}() does not take these {len(arguments)} arguments")


def _root(value: Fraction, degree: int, name: _Token) -> Fraction:
    """The real root of a rational, where that is rational too."""
    root = Fraction(_whole_root(abs(value.numerator), degree), _whole_root(value.denominator, degree))
    root = -root if value < 0 else root
    if root**degree != value:
        _fail(name.column, f"{name.text}(): expected a number with a rational root, found {format_value(value)}")
    return root


def _whole_root(number: int, degree: int) -> int:
    """The largest whole number whose power is not larger, by Newton's method from above."""
    if degree == 2:
        return math.isqrt(number)
    root = 1 << -(-number.bit_length() // degree)
    while (better := ((degree - 1) * root + number // root ** (degree - 1)) // degree) < root:
        root = better
    return root


def _bounded(value: Fraction, token: _Token) -> Fraction:
    if max(abs(value.numerator), value.denominator) > MAX_SIZE:
        found = "expected numbers up to 10**60, found a larger one (or a smaller fraction)"
        _fail(token.column, found, NumberTooLarge)
    return value


def format_value(value: Fraction) -> str:
    """The text of a value, as a model reads it: `18`, `-0.125`, `0.3333`.

    A decimal expansion that ends within 6 decimals is written in full, any
    other is rounded half-even to 4 decimals; zeros at its end are dropped. The
    runtime goes on with the exact value, whatever the text.
    """
    shown = value if 10**6 % value.denominator == 0 else round(value, 4)
    whole, decimals = divmod(int(abs(shown) * 10**6), 10**6)
    text = f"{whole}.{decimals:06d}".rstrip("0").rstrip(".")
    return f"-{text}" if shown < 0 else text
