"""Quantities in plain text: numbers, and what counts only as a whole: times, ratios, ranges and lists of numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from sgft_edge.errors import EvaluationError
from sgft_edge.text.arithmetic import evaluate, format_value
from sgft_edge.text.numerals import COUNT, PART, WORDS, numbers_in

_DIGITS = r"[0-9]{1,60}(?![0-9])"
_NUMERAL = "|".join(
    (
        rf"[0-9]{{1,3}}(?:,[0-9]{{3}}){{1,20}}(?![0-9])(?:\.{_DIGITS})?",  # 1,234.50
        rf"[0-9]{{1,2}}(?:,[0-9]{{2}}){{1,20}},[0-9]{{3}}(?![0-9])(?:\.{_DIGITS})?",  # 12,34,567.50
        rf"[0-9]{{1,3}}(?:['_][0-9]{{3}}){{1,20}}(?![0-9])(?:\.{_DIGITS})?",  # 1'234.50
        rf"[0-9]{{1,3}}(?:\.[0-9]{{3}}){{1,20}},{_DIGITS}|[0-9]{{1,3}}(?:\.[0-9]{{3}}){{2,20}}(?![0-9])",  # 1.234,50
        rf"[0-9]{{1,3}}(?: [0-9]{{3}}){{2,20}}(?![0-9])(?:[.,]{_DIGITS})?",  # 1 234 567,50
        r"(?<![0-9],)[0-9]{1,60},[0-9]{1,2}(?![0-9]|,[0-9])",  # 3,5
        rf"(?<![0-9],)0,{_DIGITS}",  # 0,125
        rf"{_DIGITS}(?:\.{_DIGITS})?|\.{_DIGITS}",
    )
)
_SCALES = {
    **dict.fromkeys(("hundred", "hundert"), 100),
    **dict.fromkeys(("thousand", "tausend", "mille", "mil"), 10**3),
    **dict.fromkeys(("million", "millions", "millionen", "millones"), 10**6),
    **dict.fromkeys(("billion", "billions", "milliarden", "milliards"), 10**9),
    "trillion": 10**12, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8,
}  # fmt: skip
_SCALE = rf"\s?(?P<scale>{'|'.join(sorted(_SCALES, key=len, reverse=True))})(?![^\W\d_])"
_POWER = (
    r"e(?P<exponent>[+-]?[0-9]{1,2})(?![a-z0-9])|\s?[×x*]\s?10\s?\^\s?[{(]?(?P<ten>-?[0-9]{1,2})(?![0-9])[})]?"
    r"|\s?\^\s?[{(]?(?P<power>-?[0-9]{1,2})(?![0-9])[})]?"
)
_CURRENCY = r"(?:[$€£¥₹]\s?)?"
_SIGN = r"(?:(?P<minus>(?<!\))-|(?<==)\s?-\s)|(?P<word>\b(?:minus|negative|moins|menos|negativ)\s|[负負]|零下))"
_BELOW_ZERO = r"(?:\s?°\s?[CF]?|\s\w{4,8})?(?:\s\w{6,10})?\s(?:below zero|unter null|bajo cero|sous zéro)"
_PART = rf"(?:half|quarter|(?:{COUNT}[- ])?{PART})"
_PLAIN = rf"-?{_CURRENCY}(?:{_DIGITS}\s?/\s?{_DIGITS}|{_DIGITS}(?:\.{_DIGITS})?)"
_RATIO_PART = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_QUANTITY = re.compile(
    r"(?<![A-Za-z0-9_^√])(?<!\^-)(?<!\^[{(])(?<!√[({])(?:"
    rf"(?P<list>[(\[{{]\s?{_PLAIN}(?:\s?,\s?{_PLAIN}){{1,20}}\s?[)\]}}](?!\s?[*/×÷^]))"
    r"|(?<![0-9][.:])(?:"
    r"(?P<hour>[0-9]{1,2})(?P<minutes>(?::[0-9]{2}){0,2})\s?(?P<half>[ap])\.?m\b"
    rf"|(?P<ratio>{_RATIO_PART}(?:(?::| : ){_RATIO_PART}){{1,2}})(?!:?[0-9])"
    rf"|{_SIGN}?{_CURRENCY}(?P<inner_minus>-)?(?:"
    rf"(?:(?P<whole>{_DIGITS})\s(?:and\s)?)?(?P<top>{_DIGITS})\s?/\s?(?P<bottom>(?!0+(?![0-9])){_DIGITS})(?!\.[0-9])"
    rf"|(?P<count>{_DIGITS})\sand\s(?P<part>{_PART})"
    rf"|(?P<digits>{_NUMERAL})(?:{_POWER}|{_SCALE})?"
    rf")(?P<below>{_BELOW_ZERO})?(?!\s?[√π])))",
    re.IGNORECASE,
)
_WORDS = re.compile(
    rf"(?:\b(?P<minus>minus|negative)\s)?(?:\b(?P<zero>zero)\b"
    rf"|\b(?:(?P<whole>{WORDS})\sand\s)?(?P<part>{_PART})"
    rf"|(?<!\bthe )(?<!\bthat )(?<!\bthis )(?<!\bwhich )(?<!\bany )(?<!\bonly )(?<!\bright )(?<!\bcorrect )"
    rf"\b(?P<words>{WORDS})(?!\s(?:of|can|could|has|that|who)\b))(?P<below>{_BELOW_ZERO})?",
    re.IGNORECASE,
)
_BETWEEN = re.compile(
    r"\s?(?:,\s?(?:and\s|or\s)?|&|(?:and|or|und|oder|y|o|et|ou)\s|[和或])\s?(?:[a-z]\s?=\s?)?", re.IGNORECASE
)
_SPAN = re.compile(r"-|\s(?:to|bis|à)\s", re.IGNORECASE)
_TAIL = re.compile(r"(?:\s?[^\W\d]++){0,3}[^\w+*/×÷=-]*")
_BEFORE = re.compile(r"[+*×÷/^-]\s?[($€£]{0,2}$")
_AFTER = re.compile(r"(?:\s?%)?(?:\s?[^\W\d]++/?){0,3}\s?[)]?\s?(?:[+*×÷=≈^]|[-/x]\s?[0-9($]|,\s?[0-9($][^=\n]{0,60}=)")
_EXPRESSION = re.compile(r"[0-9(][-+*/×÷().,0-9 ]{1,200}")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity from `start` to `end` of a text, and how it is written in short.

    A number has one part; a time has hours (of 24) and minutes, a ratio, a range or a list its numbers in their
    order. `decimals` tells how many a number that may be rounded has, None where it is exact.
    """

    kind: Literal["number", "ratio", "list"]
    parts: tuple[Fraction, ...]
    start: int
    end: int
    shown: str
    decimals: int | None = None

    def equals(self, reference: Quantity) -> bool:
        """Whether this is the reference: exactly or, of a number that is no integer, rounded as the reference is."""
        if self.kind != reference.kind or self.kind != "number" or reference.decimals is None:
            return (self.kind, self.parts) == (reference.kind, reference.parts)
        digits = min(max(reference.decimals, 2), 4)  # 0.54 is not 0.5; `format_value` has 4
        return self.parts == reference.parts or round(self.parts[0], digits) == round(reference.parts[0], digits)


def quantities(text: str) -> Iterator[Quantity]:
    """The quantities that a plain text writes in digits, in its order."""
    for match in _QUANTITY.finditer(text):
        if match["list"]:
            yield _several(tuple(_one(text, part) for part in _QUANTITY.finditer(text, match.start() + 1, match.end())))
        elif match["half"]:
            yield _time(match)
        elif match["ratio"]:
            numbers = tuple(map(Fraction, re.split(r"\s?:\s?", match["ratio"])))
            yield Quantity("ratio", numbers, *match.span(), match["ratio"].replace(" ", ""))
        else:
            yield _one(text, match)


def quantities_in_words(text: str) -> Iterator[Quantity]:
    """The numbers that a plain text writes in English words: "minus five", "two and a half", "three quarters"."""
    for match in _WORDS.finditer(text):
        said = [part for part in (match["whole"], match["part"] or match["words"]) if part]
        found = [numbers_in(part)[:1] for part in said]
        if not all(found):  # letters that only look like those of a number, such as a long s
            continue
        value = sum((value for values in found for value in values), start=Fraction(0))
        yield _number(-value if match["minus"] or match["below"] else value, match, 4)


def said_in(clause: str, found: Sequence[Quantity]) -> list[Quantity]:
    """Of the quantities of a clause those that stand for themselves, no operands; neighbours as the list they are."""
    standing = [quantity for quantity in found if not _is_operand(clause, quantity)]
    if len(standing) > 1 and len(standing) == len(found) and _TAIL.fullmatch(clause, standing[-1].end):
        gaps = [clause[one.end : other.start] for one, other in itertools.pairwise(standing)]
        if all(map(_BETWEEN.fullmatch, gaps)):
            return [_several(tuple(standing))]
        if len(gaps) == 1 and _SPAN.fullmatch(gaps[0]):
            return [_several(tuple(standing), "ratio")]
    alone = [quantity for quantity in standing if not re.match(r"-[^\W\d]", clause[quantity.end : quantity.end + 2])]
    return alone or standing  # the "3" of a "3-pack" is said of something else


def value_of(clause: str) -> Quantity | None:
    """The value of the expression that a clause is: "6 * 3"."""
    match = _EXPRESSION.search(clause)
    try:
        value = evaluate(match[0].strip(" .,-")) if match and re.search(r"[-+*/×÷]", match[0]) else None
    except EvaluationError:
        return None
    return None if match is None or value is None else _number(value, match, 4)


def _is_operand(clause: str, quantity: Quantity) -> bool:
    before, after = clause[max(0, quantity.start - 5) : quantity.start], clause[quantity.end : quantity.end + 80]
    led = _BEFORE.search(before) and re.search(r"[\w)]\W*$", clause[max(0, quantity.start - 20) : quantity.start])
    return bool((led and not _SPAN.fullmatch(before[-1:])) or _AFTER.match(after))


def _several(numbers: tuple[Quantity, ...], kind: Literal["list", "ratio"] = "list") -> Quantity:
    parts = tuple(part for number in numbers for part in number.parts)
    shown = [number.shown for number in numbers]
    text = f"({', '.join(shown)})" if kind == "list" else ":".join(shown)
    return Quantity(kind, parts, numbers[0].start, numbers[-1].end, text)


def _time(match: re.Match[str]) -> Quantity:
    hour, minutes = int(match["hour"]), match["minutes"] or ":00"
    of_day = hour % 12 + 12 * (match["half"].lower() == "p")
    parts = (of_day, *map(int, minutes[1:].split(":")))
    return Quantity("ratio", tuple(map(Fraction, parts)), *match.span(), f"{hour}{minutes} {match['half'].lower()}m")


def _one(text: str, match: re.Match[str]) -> Quantity:
    """The number of a match that is no time, ratio or list."""
    decimals = None
    if match["top"]:
        value, decimals = Fraction(int(match["top"]), int(match["bottom"])) + int(match["whole"] or 0), 4
    elif match["part"]:
        value, decimals = int(match["count"]) + numbers_in(match["part"])[0], 4
    else:
        digits = _point_decimal(match["digits"])
        value = Fraction(digits) * Fraction(10) ** int(match["exponent"] or match["ten"] or 0)
        value = value * _SCALES.get((match["scale"] or "").lower(), 1)
        if match["power"] and (value or match["power"][0] != "-"):
            value = value ** int(match["power"])
        decimals = len(digits.partition(".")[2]) or None
    operator = match["word"] and re.search(r"[0-9)]\s?$", text[max(0, match.start() - 2) : match.start()])
    negative = match["minus"] or match["inner_minus"] or match["below"] or (match["word"] and not operator)
    return _number(-value if negative else value, match, decimals)


def _number(value: Fraction, match: re.Match[str], decimals: int | None) -> Quantity:
    return Quantity("number", (value,), *match.span(), format_value(value), decimals if value.denominator > 1 else None)


def _point_decimal(numeral: str) -> str:
    """A numeral without separators, its decimals after a point."""
    numeral = re.sub(r"[ '_]", "", numeral)
    if re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+|[0-9]{1,3}(?:\.[0-9]{3}){2,}", numeral):
        return numeral.replace(".", "").replace(",", ".")
    if re.fullmatch(r"[0-9]+,[0-9]{1,2}|0,[0-9]+", numeral):
        return numeral.replace(",", ".")
    return numeral.replace(",", "")
