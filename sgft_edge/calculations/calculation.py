"""Questions that are calculations and nothing else: "what is 17 * 23?", "20% of 150", "zwölf plus drei", "√144".

A text is read in each language of `phrases.py`, as an expression alone or in a plain frame. It is a calculation only
where it parses as a whole, with one reading, and cannot be meant otherwise: dates, ranges, scores, ratios, phone
numbers and units are none, nor is `80 + 10%`, which calculators disagree on, nor `1,234` where a comma is a decimal's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from sgft_edge.calculations.certainty import Asked, is_certain, is_computation, is_enclosed, is_share
from sgft_edge.calculations.notation import Notation, any_of, joined, plain
from sgft_edge.calculations.phrases import LANGUAGES, Language
from sgft_edge.errors import DivisionByZero, EvaluationError, NumberTooLarge
from sgft_edge.text.arithmetic import evaluate

MAX_LENGTH = 300  # characters of a question that may be a calculation

_STOPS = " ?.。"


@dataclass(frozen=True, slots=True)
class Calculation:
    """What a question wants computed: its own `words`, and the `expression` as `evaluate(text, {})` reads it.

    `value` is None where it has none, for the reason that `trouble` gives in a sentence.
    """

    words: str
    expression: str
    value: Fraction | None
    trouble: str = ""


def calculation_in(text: str) -> Calculation | None:
    """The calculation that a text is, None where it may be anything else; at once, however long the text."""
    if len(text) > 2 * MAX_LENGTH or "\n" in text.strip():
        return None
    text = " ".join(text.split())
    if not text or len(text) > MAX_LENGTH:
        return None
    found = {reading for frame in _frames() if (reading := frame.reading(plain(text)))}
    if len({expression for _, _, expression in found}) != 1:
        return None
    start, end, expression = max(found)  # the shortest words, where languages differ in what they take for a frame
    words = text[start:end]
    try:
        return Calculation(words, expression, evaluate(expression, {}))
    except DivisionByZero:
        return Calculation(words, expression, None, "Division by zero has no value.")
    except NumberTooLarge:
        return Calculation(words, expression, None, "The numbers in this calculation are too large to be computed.")
    except EvaluationError:
        return None


class _Frame:
    """A language's ways to ask for the value of an expression."""

    def __init__(self, language: Language) -> None:
        self._notation = Notation(language)
        self._spaced = language.spaced
        self._closings = _longest_first(language.closings)
        self._courtesies = _longest_first(language.courtesies)
        after = r"(?:[ :,]+|(?=[(√]))" if language.spaced else "[ :,]*"
        asking = f"(?P<orders>{any_of(language.orders)})|(?P<asks>{any_of(language.asks)})"
        value_of = f"(?P<value_of>{any_of(language.value_of)}{after})?" if language.value_of else "(?P<value_of>)"
        courtesy = f"(?:{any_of(language.courtesies)}{after})?"
        self._opening = re.compile(f"[¿¡ ]*{courtesy}(?:(?:{asking}){after}{value_of}|(?P<equals>=) ?)?")
        operands = {name: f"(?P<{name}>.+)" for name in ("a", "b", "share")}
        self._forms = [(re.compile(plain(form).format(**operands)), made) for form, made in language.forms.items()]

    def reading(self, text: str) -> tuple[int, int, str] | None:
        """Where the expression stands in a plain text, from where to where, and as `evaluate` reads it."""
        opening = self._opening.match(text)
        assert opening is not None  # all of it is optional
        body, closed = self._without_closing(text[opening.end() :])
        ordered = opening["orders"] or opening["value_of"] or opening["equals"] or closed
        asked = Asked.FOR_A_VALUE if ordered else Asked.PERHAPS if opening["asks"] else Asked.NOT
        expression = self._form(body) or self._expression(body, asked)
        return (opening.end(), opening.end() + len(body), expression) if expression else None

    def _without_closing(self, body: str) -> tuple[str, bool]:
        """What is asked for, and whether the words or the sign after it ask for its value."""
        body = self._without(body.rstrip(_STOPS), self._courtesies).rstrip(_STOPS)
        unsigned = body.removesuffix("=").rstrip(_STOPS)
        worded = self._without(unsigned, self._closings)
        return worded.rstrip(" ="), len(worded.rstrip(" =")) < len(body)

    def _without(self, body: str, endings: tuple[str, ...]) -> str:
        for ending in endings:
            before = body.removesuffix(ending)
            if before != body and (not self._spaced or before[-1:] in (" ", ",", "=")):
                return before.rstrip(" ,")
        return body

    def _form(self, body: str) -> str | None:
        for pattern, made in self._forms:
            if match := pattern.fullmatch(body):
                operands = {name: self._operand(text.strip(), name) for name, text in match.groupdict().items()}
                if all(operands.values()):
                    return made.format(**operands)
        return None

    def _operand(self, text: str, name: str) -> str | None:
        tokens = self._notation.tokens(text)
        if not tokens:
            return None
        if name == "share":
            return joined(tokens).strip("()") if is_share(tokens) else None
        if [token.kind for token in tokens] == ["number"] or (is_enclosed(tokens) and is_computation(tokens)):
            return joined(tokens)
        return None

    def _expression(self, body: str, asked: Asked) -> str | None:
        tokens = self._notation.tokens(body)
        return joined(tokens) if tokens and is_computation(tokens) and is_certain(tokens, asked) else None


def _longest_first(phrases: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(map(plain, phrases), key=len, reverse=True))


@cache
def _frames() -> tuple[_Frame, ...]:
    return tuple(map(_Frame, LANGUAGES))
