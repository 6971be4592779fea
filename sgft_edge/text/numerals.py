"""The numbers that a natural-language text gives, in digits and in English words, as rationals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from sgft_edge.text.arithmetic import GROUPED
from sgft_edge.text.characters import in_ascii

_SMALL_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = dict(zip(_SMALL_WORDS.split(), range(1, 20), strict=True))
_TENS = dict(zip(_TENS_WORDS.split(), range(20, 100, 10), strict=True))
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_CHINESE = dict(zip("零〇一二三四五六七八九两", (0, *range(10), 2), strict=True))
_CHINESE_UNITS = {"十": 10, "百": 100, "千": 1000}
_MULTIPLES = {"twice": 2, "double": 2, "doubled": 2, "doubles": 2, "thrice": 3, "triple": 3, "tripled": 3,
              "triples": 3, "dozen": 12, "dozens": 12}  # fmt: skip
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
          "eighth": 8, "ninth": 9, "tenth": 10, "twelfth": 12, "twentieth": 20}  # fmt: skip


def _any(words: Mapping[str, int]) -> str:
    return f"(?:{'|'.join(sorted(words, key=len, reverse=True))})"


_BELOW_100 = rf"(?:{_any(_TENS)}(?:-{_any(_SMALL)}\b| {_any(_SMALL)}\b(?!-))?|{_any(_SMALL)})\b"
_BELOW_1000 = rf"(?:(?:{_BELOW_100}[- ])?hundred\b(?: (?:and )?{_BELOW_100})?|{_BELOW_100})"
_SCALED = rf"(?:{_BELOW_1000}[- ])?(?:thousand|million|billion)\b"
# Patterns of numbers in lower-case words: counts, and the parts of which there can be some.
WORDS = rf"{_SCALED}(?:,? (?:and )?{_SCALED})*(?:,? (?:and )?{_BELOW_1000})?|{_BELOW_1000}"
COUNT = rf"(?:{_any(_SMALL)}|an?)"
PART = rf"(?:{_any(_PARTS)})s?\b"
_DIGITS = r"[0-9]{1,60}(?![0-9])"
_STANDING = re.compile(
    rf"(?<![a-z0-9])(?:(?P<whole>{_DIGITS})[ -])?(?P<top>{_DIGITS})/(?P<bottom>(?!0+(?![0-9])){_DIGITS})"
    rf"|(?P<minus>(?<![^\s(])-[$€£]?)?(?<![a-z0-9])(?P<digits>{GROUPED}|{_DIGITS}(?:\.{_DIGITS})?|\.{_DIGITS})"
    r"(?:[ -](?P<scale>hundred|thousand|million|billion)\b)?"
    rf"|\b(?:(?P<count>{COUNT})[- ])?(?P<part>half|halves|quarter)s?\b"
    rf"|\b(?P<count2>{COUNT})[- ](?P<part2>{_any(_PARTS)})s?\b"
    rf"|\b(?P<multiple>{_any(_MULTIPLES)})\b"
    rf"|\b(?P<words>{WORDS})"
)
_CHINESE_DIGIT, _CHINESE_ZERO = "[一二两三四五六七八九]", "[零〇]"
_TENS_ON = f"{_CHINESE_DIGIT}?十{_CHINESE_DIGIT}?"
_HUNDREDS_ON = f"{_CHINESE_DIGIT}百(?:{_CHINESE_ZERO}{_CHINESE_DIGIT}|{_TENS_ON})?"
_THOUSANDS_ON = f"{_CHINESE_DIGIT}千(?:{_CHINESE_ZERO}(?:{_TENS_ON}|{_CHINESE_DIGIT})|{_HUNDREDS_ON})?"
_BELOW_10000 = f"(?:{_THOUSANDS_ON}|{_HUNDREDS_ON}|{_TENS_ON}|{_CHINESE_DIGIT})"
_IN_CHINESE = re.compile(
    f"(?:{_BELOW_10000}万(?:{_CHINESE_ZERO}?{_BELOW_10000})?|{_BELOW_10000}|{_CHINESE_ZERO})"
    f"(?!{_CHINESE_ZERO}|{_CHINESE_DIGIT}|[十百千万亿])"
)
_IN_WORDS = re.compile(rf"\b(?:{WORDS})")


def numbers_in(text: str, *, words: bool = True) -> list[Fraction]:
    """The numbers that a natural-language text gives, in its order; without `words`, those in digits only.

    Read are digits of any script with separators, decimals and signs, and the
    English words from "one" to "nine hundred billion", "half", "twice",
    "dozen" and their like. A percentage stands as its literal number: 20% is
    20. A fraction (3/4, ½, 2 1/2, three quarters, half) stands as its value and
    then as its parts, because "3/4 of 20" is worked out as `20 * 3 / 4`.
    """
    found = (match for match in _STANDING.finditer(in_ascii(text).lower()) if words or match["top"] or match["digits"])
    return [value for match in found for value in _values(match)]


def number_in_words(text: str, position: int = 0) -> tuple[int, int] | None:
    """The number in English words that begins at a position of a lowercase text, and the position where it ends."""
    match = _IN_WORDS.match(text, position)
    return (_in_words(re.findall(r"[a-z]+", match[0])), match.end()) if match else None


def number_in_chinese(text: str, position: int = 0) -> tuple[int, int] | None:
    """As `number_in_words`, in Chinese below 10**8; neither 二三 nor 二百五, which is 205 to some and 250 to others."""
    match = _IN_CHINESE.match(text, position)
    if match is None:
        return None
    total = below = digit = 0
    for char in match[0]:
        if char == "万":
            total, below, digit = (below + digit) * 10**4, 0, 0
        elif char in _CHINESE_UNITS:
            below, digit = below + (digit or 1) * _CHINESE_UNITS[char], 0
        else:
            digit = _CHINESE[char]
    return total + below + digit, match.end()


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
