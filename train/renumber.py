"""The same problem with other numbers: what to compute is in the words, and the numbers only stand in for themselves.

A small answerer must learn to take the right operands from the problem and the values so far. A thousand problems are
few for that, but each can be asked with any numbers: those in digits are drawn anew, in the question, the guidance and
the expressions alike, and the answer is computed. Only where it is certain which operand is which number; elsewhere a
problem stays as it is.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from sgft_edge.errors import EvaluationError
from sgft_edge.text.arithmetic import format_value
from sgft_edge.text.chain import UNIT_FACTS, value_after
from sgft_edge.text.numerals import numbers_in
from train.check_sg import Row, faults_of

_TRIES = 200
_OPERAND = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_WORDS = ("three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen")
_WORTHS = {word: Fraction(worth) for worth, word in enumerate(_WORDS, start=3)}
_SHARES = (Fraction(1), Fraction(1, 100))  # a percentage may stand as 20 or as 0.2
_UNITS = frozenset(map(Fraction, UNIT_FACTS))
_MENTION = re.compile(  # no ratio, date, or part of a longer number
    r"(?<![\w.,/:-])(?:(?P<grouped>[0-9]{1,3}(?:,[0-9]{3})+)|(?P<decimal>[0-9]+\.[0-9]+)|(?P<whole>[0-9]+))"
    r"(?P<percent> ?%| percent\b)?(?![\w/:%-]|[.,][0-9])"
    rf"|\b(?P<word>{'|'.join(_WORDS)})\b(?!-)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Operand:
    """Where an operand comes from: `share` of a number of the text to be drawn anew, an earlier value, or neither."""

    text: str
    given: Fraction | None = None
    share: Fraction = Fraction(1)
    step: int | None = None


@dataclass(frozen=True)
class _Range:
    """From what a number is drawn anew: whole multiples of `grain` from `low` to `high`."""

    low: int
    high: int
    grain: Fraction

    def draw(self, draw: random.Random) -> Fraction:
        return draw.randint(self.low, self.high) * self.grain


def renumbered(row: Row, draw: random.Random) -> Row | None:
    """The row with other numbers, or None where they cannot be told apart or no others lead to a like answer."""
    if row.expressions is None or row.question.choices:
        return None
    free = _free(row)
    try:
        read = _read(row, set(free))
    except EvaluationError:
        return None
    if not free or read is None:
        return None
    for _ in range(_TRIES):
        numbers = {number: range_.draw(draw) for number, range_ in sorted(free.items())}
        if (found := _computed(*read, numbers)) is not None:
            written, values = found
            changed = replace(
                row,
                question=replace(row.question, text=_rewritten(row.question.text, numbers)),
                guidance=_rewritten(row.guidance, numbers),
                expressions=tuple(written),
                answer=format_value(values[-1]),
            )
            if not any(faults_of(changed)):
                return changed
    return None


def _free(row: Row) -> dict[Fraction, _Range]:
    """The numbers that may be drawn anew, since each mention of theirs is read with certainty, and from what."""
    steps = re.sub(r"^[0-9]+\.", "", row.guidance, flags=re.MULTILINE)
    asked, planned = (list(_MENTION.finditer(text)) for text in (row.question.text, steps))
    all_of = Counter([*numbers_in(row.question.text), *numbers_in(steps)])
    operands = [Fraction(text) for expression in row.expressions or () for text in _OPERAND.findall(expression or "")]
    used = {operand / share for operand in operands for share in _SHARES}
    free = {}
    for number in dict.fromkeys(map(_worth, asked)):
        mentions, again = ([m for m in part if _worth(m) == number] for part in (asked, planned))
        styles = {_style(mention) for mention in mentions}
        in_words, in_percent = styles == {"word"}, styles == {"percent"}
        counted = "word" in map(_style, again) and not in_words  # "the four kinds" of a problem with 4 hens
        idle = number not in used and (in_words or in_percent)  # 50% as a half
        if number in _UNITS or len(styles) > 1 or counted or idle:
            continue
        if all_of[number] == len(mentions) + len(again):
            free[number] = _range(number, mentions)
    return free


def _style(mention: re.Match[str]) -> str:
    return next(name for name in ("word", "percent", "decimal", "whole", "grouped") if mention[name])


def _worth(mention: re.Match[str]) -> Fraction:
    if word := mention["word"]:
        return _WORTHS[word.lower()]
    return Fraction((mention["grouped"] or mention["decimal"] or mention["whole"]).replace(",", ""))


def _range(number: Fraction, mentions: Sequence[re.Match[str]]) -> _Range:
    """Numbers of like size, that can be written in the same way."""
    style = _style(mentions[0])
    if style == "word":
        return _Range(3, 2 + len(_WORDS), Fraction(1))
    places = max(len(mention["decimal"].partition(".")[2]) if mention["decimal"] else 0 for mention in mentions)
    if style == "percent" and number < 100:
        return _Range(1, 19, Fraction(5)) if number % 5 == 0 else _Range(3, 99, Fraction(1, 10**places))
    if number % 50 == 0 and number >= 200:  # a round number stays one
        return _Range(max(2, int(number / 150)), int(number * 3 / 50), Fraction(50))
    grain = Fraction(1, 10**places)
    if places:
        return _Range(max(1, int(number / 3 / grain)), int(3 * number / grain), grain)
    return _Range(max(3, int(number / 3)), max(20, int(3 * number)), grain)


_Parts = list[str | _Operand] | None


def _read(row: Row, free: set[Fraction]) -> tuple[list[_Parts], list[Fraction]] | None:
    """The expressions in parts and their values; None where an operand might be two things or comes from nowhere."""
    assert row.expressions is not None
    given = {abs(n) for n in numbers_in(row.question.text)}
    known = given | {n / 100 for n in given} | _UNITS
    values: list[Fraction] = []
    read: list[_Parts] = []
    for expression in row.expressions:
        if expression is None:
            read.append(None)
            continue
        parts: list[str | _Operand] = []
        end = 0
        for match in _OPERAND.finditer(expression):
            number = Fraction(match[0])
            steps = [i for i, value in enumerate(values) if Fraction(format_value(value)) == number]
            sources = [(number / share, share) for share in _SHARES if number / share in free]
            told = len(sources) or int(number in given)
            if len(steps) + told > 1 or not (steps or told or number in known):
                return None
            source, share = sources[0] if sources else (None, Fraction(1))
            operand = _Operand(match[0], source, share, steps[0] if steps else None)
            parts += [expression[end : match.start()], operand]
            end = match.end()
        read.append([*parts, expression[end:]])
        values.append(value_after(expression, values))
    return read, values


def _computed(
    expressions: Sequence[_Parts], before: Sequence[Fraction], numbers: Mapping[Fraction, Fraction]
) -> tuple[list[str | None], list[Fraction]] | None:
    """The expressions with other numbers, and their values; None where these are not positive, and whole as before."""
    values: list[Fraction] = []
    written: list[str | None] = []
    whole = all(number.denominator == 1 for number in numbers.values())
    for parts in expressions:
        if parts is None:
            written.append(None)
            continue
        text = "".join(part if isinstance(part, str) else _operand(part, numbers, values) for part in parts)
        try:
            value = value_after(text, values)
        except EvaluationError:
            return None
        if value <= 0 or (1 if whole and before[len(values)].denominator == 1 else 100) % value.denominator:
            return None
        values.append(value)
        written.append(text)
    return written, values


def _operand(part: _Operand, numbers: Mapping[Fraction, Fraction], values: Sequence[Fraction]) -> str:
    if part.given is not None:
        return format_value(numbers[part.given] * part.share)
    return part.text if part.step is None else format_value(values[part.step])


def _rewritten(text: str, numbers: Mapping[Fraction, Fraction]) -> str:
    """The text with each number that was drawn anew, written as the old one was."""

    def written(mention: re.Match[str]) -> str:
        if (number := numbers.get(_worth(mention))) is None:
            return mention[0]
        if word := mention["word"]:
            other = _WORDS[int(number) - 3]
            return other.capitalize() if word[0].isupper() else other
        if mention["decimal"]:
            places = len(mention["decimal"].partition(".")[2])
            digits = f"{float(number):.{places}f}"
        else:
            digits = f"{int(number):,}" if mention["grouped"] else format_value(number)
        return digits + (mention["percent"] or "")

    return _MENTION.sub(written, text)
