"""Whether tokens are something to compute, and cannot be meant otherwise.

What people complain of in calculators that read along: 555-1234, 9/11, 3-5 and 2026-11-27 as differences and quotients,
and a percent sign that means one thing in `80 + 10%` and another in `10% + 80`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from fractions import Fraction
from itertools import pairwise

from sgft_edge.calculations.notation import Token


class Asked(IntEnum):
    """How plainly a question asks for a value: "17 * 23", "what is 17 * 23?", "calculate 17 * 23"."""

    NOT = 0
    PERHAPS = 1
    FOR_A_VALUE = 2


def is_computation(tokens: Sequence[Token]) -> bool:
    """Whether something is to be computed, in an order that nobody doubts."""
    kinds = [token.kind for token in tokens]
    operators = [token for token in tokens if token.kind == "operator"]
    doubtful = any(
        second.text == "/" and not second.apart and (first.text == "**" or (first.text == "/" and first.apart))
        for first, second in pairwise(operators)  # 2^1/2 and 3 / 1/2, where 1/2 may be meant as a fraction
    )
    return any(kind in ("operator", "power", "root") for kind in kinds) and not doubtful and _are_factors(tokens)


def _are_factors(tokens: Sequence[Token]) -> bool:
    """Whether percentages are multiplied or divided, never added."""
    around = [(a, b) for a, b in pairwise(tokens) if "percentage" in (a.kind, b.kind)]
    others = [b if a.kind == "percentage" else a for a, b in around]
    return all(other.kind in ("open", "close") or other.text in ("*", "/") for other in others)


def is_enclosed(tokens: Sequence[Token]) -> bool:
    """Whether one pair of parentheses stands around all of them."""
    depth = 0
    for token in tokens[:-1]:
        depth += (token.kind == "open") - (token.kind == "close")
        if depth < 1:
            return False
    return depth == 1 and tokens[-1].kind == "close"


def is_share(tokens: Sequence[Token]) -> bool:
    """Whether they are a percentage or a fraction: what something else can be of."""
    kinds = [token.kind for token in tokens]
    if kinds == ["number", "operator", "number"]:
        return tokens[1].written == "/" and not tokens[1].apart
    return kinds == ["percentage"] or (kinds == ["number"] and "/" in tokens[0].text and "+" not in tokens[0].text)


def is_certain(tokens: Sequence[Token], asked: Asked) -> bool:
    """Whether it is no date, range, score, ratio, size or phone number."""
    if asked is Asked.FOR_A_VALUE:
        return True
    signs = [token for token in tokens if token.kind == "operator"]
    if any(sign.written == ":" or (sign.written == "x" and not sign.apart) for sign in signs):
        return False
    others = [token for token in tokens if token.kind not in ("operator", "open", "close")]
    written = {sign.written for sign in signs}
    if written not in ({"-"}, {"/"}) or not all(token.kind == "number" and token.written for token in others):
        return True
    values = [Fraction(token.text) for token in others]
    apart = all(sign.apart for sign in signs)
    if len(values) != 2:
        return apart and not _is_date(values)
    first, second = values
    return (
        _is_difference(first, second, apart, asked) if written == {"-"} else apart or _is_quotient(first, second, asked)
    )


def _is_difference(first: Fraction, second: Fraction, apart: bool, asked: Asked) -> bool:
    """Whether two numbers with a dash between them are no range (3-5), no score (2-1), and no number (555-1234)."""
    if asked is Asked.PERHAPS:
        return apart or first > second
    return first > second and (apart or first.denominator > 1 or second.denominator > 1)


def _is_quotient(first: Fraction, second: Fraction, asked: Asked) -> bool:
    """Whether two numbers with a stroke between them are no date (9/11, 2026/11), ratio (60/40), or name (24/7).

    Who asks what 10/2 is means the number that it comes out as.
    """
    if second == 0 or first.denominator > 1 or second.denominator > 1:
        return True
    if first + second == 100 or 1900 <= first <= 2100:
        return False
    return first > 31 >= second or (asked is Asked.PERHAPS and first > second > 1 and first % second == 0)


def _is_date(values: Sequence[Fraction]) -> bool:
    """Whether three numbers can be a year, a month and a day in any order."""
    small = [value for value in values if value <= 31]
    return len(values) == 3 and len(small) == 2 and any(1900 <= value <= 2100 for value in values)
