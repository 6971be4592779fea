"""Exact arithmetic: expressions in and out of model text, as rationals.

A number is a `fractions.Fraction` everywhere, so that `1 / 3 * 3` is 1. Nothing
here executes what a model wrote: `evaluate` has a tokenizer and a
precedence-climbing parser of its own, with bounds on length, depth and size.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NoReturn

from sgft_edge.errors import EvaluationError

__all__ = ["evaluate", "expression_grammar", "format_value", "gbnf_literal", "numbers_in"]

MAX_LENGTH = 2_000  # characters of one expression
MAX_DEPTH = 50  # parentheses, calls, signs and powers inside each other
MAX_SIZE = 10**60  # of a numerator or a denominator
MAX_EXPONENT = 64  # of `**` and of scientific notation

FUNCTIONS = ("abs", "float", "int", "max", "min", "round")

_GROUPED = r"[0-9]{1,3}(?:,[0-9]{3}){1,20}(?![0-9])(?:\.[0-9]+)?"
_PLAIN_NUMBER = rf"{_GROUPED}|[0-9]+\.?[0-9]*|\.[0-9]+"
_PROGRAM_NUMBER = r"(?:[0-9]+(?:_[0-9]+)*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_PLAIN_TOKEN = re.compile(rf"(?P<number>{_PLAIN_NUMBER})|(?P<mark>[-+*/()])")
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
    is half-even on the exact value, `float` changes nothing); no thousands
    separators, since a comma separates arguments.

    Raises `EvaluationError`, with a column counted from 1, where the text is no
    such expression, divides by zero, or passes one of the bounds above.
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


def _fail(column: int, message: str) -> NoReturn:
    raise EvaluationError(f"column {column}: {message}")


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
        _fail(token.column, f"expected an exponent of at most {MAX_EXPONENT}, found {exponent}")
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
            if right.denominator != 1 or abs(right) > MAX_EXPONENT:
                _fail(operator.column, f"expected a whole exponent of at most {MAX_EXPONENT}")
            if left or right >= 0:
                return left ** int(right)
        case "/" if right:
            return left / right
        case "//" if right:
            return Fraction(left // right)
        case "%" if right:
            return left % right
    _fail(operator.column, "division by zero")


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
    _fail(name.column, f"{name.text}() does not take these {len(arguments)} arguments")


def _bounded(value: Fraction, token: _Token) -> Fraction:
    if max(abs(value.numerator), value.denominator) > MAX_SIZE:
        _fail(token.column, "expected numbers up to 10**60, found a larger one (or a smaller fraction)")
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


_SMALL_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = dict(zip(_SMALL_WORDS.split(), range(1, 20), strict=True))
_TENS = dict(zip(_TENS_WORDS.split(), range(20, 100, 10), strict=True))
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_MULTIPLES = {"twice": 2, "double": 2, "doubled": 2, "doubles": 2, "thrice": 3, "triple": 3, "tripled": 3,
              "triples": 3, "dozen": 12, "dozens": 12}  # fmt: skip
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
          "eighth": 8, "ninth": 9, "tenth": 10, "twelfth": 12, "twentieth": 20}  # fmt: skip


def _any(words: Mapping[str, int]) -> str:
    return f"(?:{'|'.join(sorted(words, key=len, reverse=True))})"


_BELOW_100 = rf"(?:{_any(_TENS)}(?:-{_any(_SMALL)}\b| {_any(_SMALL)}\b(?!-))?|{_any(_SMALL)})\b"
_BELOW_1000 = rf"(?:(?:{_BELOW_100}[- ])?hundred\b(?: (?:and )?{_BELOW_100})?|{_BELOW_100})"
_SCALED = rf"(?:{_BELOW_1000}[- ])?(?:thousand|million|billion)\b"
_WORDS = rf"{_SCALED}(?:,? (?:and )?{_SCALED})*(?:,? (?:and )?{_BELOW_1000})?|{_BELOW_1000}"
_COUNT = rf"(?:{_any(_SMALL)}|an?)"
_DIGITS = r"[0-9]{1,60}(?![0-9])"
_STANDING = re.compile(
    rf"(?<![a-z0-9])(?:(?P<whole>{_DIGITS})[ -])?(?P<top>{_DIGITS})/(?P<bottom>(?!0+(?![0-9])){_DIGITS})"
    rf"|(?P<minus>(?<![^\s(])-[$€£]?)?(?<![a-z0-9])(?P<digits>{_GROUPED}|{_DIGITS}(?:\.{_DIGITS})?|\.{_DIGITS})"
    r"(?:[ -](?P<scale>hundred|thousand|million|billion)\b)?"
    rf"|\b(?:(?P<count>{_COUNT})[- ])?(?P<part>half|halves|quarter)s?\b"
    rf"|\b(?P<count2>{_COUNT})[- ](?P<part2>{_any(_PARTS)})s?\b"
    rf"|\b(?P<multiple>{_any(_MULTIPLES)})\b"
    rf"|\b(?P<words>{_WORDS})"
)


def numbers_in(text: str, *, words: bool = True) -> list[Fraction]:
    """The numbers that a natural-language text gives, in its order; without `words`, those in digits only.

    Read are digits of any script with separators, decimals and signs, and the
    English words from "one" to "nine hundred billion", "half", "twice",
    "dozen" and their like. A percentage stands as its literal number: 20% is
    20. A fraction (3/4, ½, 2 1/2, three quarters, half) stands as its value and
    then as its parts, because "3/4 of 20" is worked out as `20 * 3 / 4`.
    """
    plain = "".join(map(_plain, text)).lower()
    found = (match for match in _STANDING.finditer(plain) if words or match["top"] or match["digits"])
    return [value for match in found for value in _values(match)]


def _plain(char: str) -> str:
    """One character in ASCII digits and marks where it has them; ½ becomes " 1/2"."""
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    if char in "−٫٬":
        return {"−": "-", "٫": ".", "٬": ","}[char]
    compatible = unicodedata.normalize("NFKC", char)
    if "\N{FRACTION SLASH}" in compatible and len(compatible) > 2:
        return " " + compatible.replace("\N{FRACTION SLASH}", "/")
    return compatible if char in "．，／％＄" else char


def _values(match: re.Match[str]) -> list[Fraction]:
    group = match.groupdict()
    if group["top"]:
        parts = [Fraction(group[name]) for name in ("whole", "top", "bottom") if group[name]]
        return [(parts[0] if len(parts) == 3 else 0) + parts[-2] / parts[-1], *parts]
    if group["digits"]:
        value = Fraction(group["digits"].replace(",", "")) * _SCALES.get(group["scale"] or "", 1)
        return [-value if group["minus"] else value]
    if part := group["part"] or group["part2"]:
        top = _SMALL.get(group["count"] or group["count2"] or "", 1)
        return [Fraction(top, _PARTS[part]), Fraction(top), Fraction(_PARTS[part])]
    if group["multiple"]:
        return [Fraction(_MULTIPLES[group["multiple"]])]
    return [Fraction(_in_words(re.findall(r"[a-z]+", group["words"])))]


def _in_words(words: list[str]) -> int:
    total = group = 0
    for word in words:
        if word == "hundred":
            group = max(group, 1) * 100
        elif word in _SCALES:
            total += max(group, 1) * _SCALES[word]
            group = 0
        else:
            group += (_SMALL | _TENS).get(word, 0)
    return total + group


def expression_grammar(end: str, numbers: Sequence[str] | None = None, nothing: str | None = None) -> str:
    """A GBNF grammar (llama.cpp) for one arithmetic expression followed by `end`.

    `numbers` holds the operands to these literals, such as `("16", "0.5")`;
    without them (None or empty) any number of up to 12 digits and 6 decimals
    may stand. `nothing` is a text that may stand instead of an expression.
    Whatever the grammar accepts, `evaluate` reads; it may still divide by zero
    or pass the bounds on length and size.

    Raises `EvaluationError` when one of `numbers` is not a plain number.
    """
    for number in numbers or ():
        if not re.fullmatch(rf"-?(?:{_PLAIN_NUMBER})", number):
            raise EvaluationError(f"expected numbers to choose operands from, found {number!r}")
    rules = [
        f"root ::= ({f'{gbnf_literal(nothing)} | ' if nothing else ''}sum0) {gbnf_literal(end)}",
        'operator ::= " "? [-+*/] " "?',
        f"number ::= {' | '.join(map(gbnf_literal, dict.fromkeys(numbers))) if numbers else FREE_NUMBER}",
        *sum_rules("number", group='"(" {sum} ")"'),
    ]
    return "\n".join(rules) + "\n"


FREE_NUMBER = '"-"? [0-9]{1,12} ("." [0-9]{1,6})?'
_OPERANDS = (12, 6, 4, 2)  # of an expression, of a group in it, of a group in that: a decoding always ends


def sum_rules(atom: str, group: str) -> list[str]:
    """GBNF rules `sum0`, `sum1`, ...: operands joined by `operator`, each an `atom` or, above the last, a `group`.

    `group` names the sum inside it as `{sum}`.
    """
    rules = []
    for level, operands in enumerate(_OPERANDS):
        operand = f"{atom} | {group.format(sum=f'sum{level + 1}')}" if level + 1 < len(_OPERANDS) else atom
        rules.append(f"sum{level} ::= operand{level} (operator operand{level}){{0,{operands - 1}}}")
        rules.append(f"operand{level} ::= {operand}")
    return rules


def gbnf_literal(text: str) -> str:
    """`text` as a GBNF string literal."""
    escapes = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
    return '"' + "".join(escapes.get(char, char) for char in text) + '"'
