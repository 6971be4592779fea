"""Where a final answer is read from free model text, and compared with a reference."""

import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

from sgft_edge.arithmetic import format_value

__all__ = ["extract", "extract_choice", "extract_number", "is_correct", "plain"]

# LaTeX and Markdown to the characters they print.
_MARKUP = [
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"[−‑]|–(?=\$?[0-9])", "-"),
        (r"(?<=[0-9])\s*\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" \1/\2"),
        (r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2"),
        (r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", r" \1 "),
        (r"\{,\}", ","),
        (r"\\[,!;]|\\[()\[\]]|\*\*|__|`", ""),
        (r"\\([$%#&])", r"\1"),
        (r"\\(?:times|cdot)\b", "×"),
    )
]
_MARK = re.compile(
    r"\\f?boxed\s*\{(?P<boxed>(?:[^{}]|\{[^{}]*\})*)\}"
    r"|\#{4}\s*(?=(?P<hashes>[^\n]{1,300}))"
    r"|\b(?:answer|choice|option)(?:\s*\([^)\n]*\)|\s+(?:to|for|of|in)\b[^.\n:=]{0,80}?)?"
    r"(?:\s+(?:is|are|equals|(?:should|would|will|must)\s+be)\b|\s*[:=])[\s:]*"
    r"(?=(?P<said>(?:[^\n.;!?]|\.(?=\S)){1,300}))",
    re.IGNORECASE,
)
_DIGITS = r"[0-9]{1,60}(?![0-9])"
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9^])(?<!\^\{)(?P<minus>(?<!\))-)?[$€£¥]?(?P<inner_minus>-)?(?:"
    rf"(?:(?P<whole>{_DIGITS})\s+)?(?P<top>{_DIGITS})\s?/\s?(?P<bottom>(?!0+(?![0-9])){_DIGITS})(?!/)"
    rf"|(?P<digits>[0-9]{{1,3}}(?:,[0-9]{{3}}){{1,20}}(?![0-9])(?:\.{_DIGITS})?|{_DIGITS}(?:\.{_DIGITS})?|\.{_DIGITS})"
    r"(?:e(?P<exponent>[+-]?[0-9]{1,2})(?![a-z0-9])|\s?[×x*]\s?10\^\{?(?P<power>-?[0-9]{1,2})(?![0-9])\}?)?)",
    re.IGNORECASE,
)
_OPENING = r"[\s\"'“‘(\[]*"
_ARTICLE = re.compile(r"[Aa]\s+(?!(?:and|as|based|because|due|for|is|or|since|which|with)\b)[a-z]")


def extract(text: str, choices: Mapping[str, str] | None = None, *, whole: bool = True) -> str | None:
    """The final answer of a text: the key of a choice or, without choices, a number as `format_value` writes it.

    Of a text that is not `whole`, cut off at the limit on tokens, only what it marks as its answer counts.
    """
    if choices:
        return extract_choice(text, choices, whole=whole)
    number = extract_number(text, whole=whole)
    return None if number is None else format_value(number)


def extract_number(text: str, *, whole: bool = True) -> Fraction | None:
    r"""The number that a text gives as its final answer, None where it has no number.

    It is the number in the last of the marks `\boxed{...}`, `#### ...`, "answer
    is ..." and "answer: ..." that has one (after its last equals sign, if it
    has any), else the last number of the text. A box without a number, or with
    several and no word, says that there is none. A percentage stands as its
    literal number: 20% is 20.
    """
    text = plain(text)
    for mark in filter(None if whole else _is_whole, _marks(text)):
        if (box := (mark["boxed"] or "").rpartition("=")[2]).strip():
            several = len(_NUMBER.findall(box)) > 1 and not re.search("[A-Za-z]{2}", box)
            return None if several else _number_in(box)
        if (number := _number_in(_clause(mark))) is not None:
            return number
    last = _last(_NUMBER.finditer(text)) if whole else None
    return _value(last) if last else None


def plain(text: str) -> str:
    """A text with LaTeX and Markdown as the characters that they print."""
    for pattern, printed in _MARKUP:
        text = pattern.sub(printed, text)
    return text


def _marks(text: str) -> list[re.Match[str]]:
    """The marks of a final answer, the last one first."""
    return list(_MARK.finditer(text))[::-1]


def _is_whole(mark: re.Match[str]) -> bool:
    """Whether what a mark says has an end."""
    end = max(mark.end(kind) for kind in ("boxed", "hashes", "said"))
    return mark.string[end : end + 1] in tuple("}.;!?\n")


def _clause(mark: re.Match[str]) -> str:
    """What a mark says."""
    return mark["boxed"] or mark["hashes"] or mark["said"] or ""


def _number_in(clause: str) -> Fraction | None:
    match = _NUMBER.search(clause.rpartition("=")[2]) or _NUMBER.search(clause)
    return _value(match) if match else None


def _last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    last = None
    for last in matches:  # noqa: B007
        pass
    return last


def _value(match: re.Match[str]) -> Fraction:
    if match["top"]:
        value = Fraction(match["whole"] or 0) + Fraction(int(match["top"]), int(match["bottom"]))
    else:
        exponent = int(match["exponent"] or match["power"] or 0)
        value = Fraction(match["digits"].replace(",", "")) * Fraction(10) ** exponent
    return -value if match["minus"] or match["inner_minus"] else value


def extract_choice(text: str, choices: Mapping[str, str], *, whole: bool = True) -> str | None:
    r"""The key of the choice that a text gives as its final answer, None where it can't be told.

    In this order: what the last telling mark says (`\boxed{B}`, "answer is (b)",
    "answer: library", or the value of one choice); the one key that the last
    line writes as a key ("(B)", "B.", "B) library", "option B", or alone), else
    the one that the whole text does; a choice's text as an interjection that
    begins a sentence ("Yes, ...", "So no."), the last one; the one choice whose
    text stands in the text. The article in "A library" is no key.
    """
    text = plain(text).strip()
    texts = {key: plain(choice).strip() for key, choice in choices.items()}
    for mark in _marks(text):
        if key := _in_clause(_clause(mark), texts):
            return key
    if not whole:
        return None
    lines = text.splitlines() or [""]
    return (
        _only(_written_keys(lines[-1], texts))
        or _only(_written_keys(text, texts))
        or _interjected(text, texts)
        or (None if set(map(str.lower, texts.values())) == {"yes", "no"} else _named(text, texts))
    )


def _in_clause(clause: str, texts: Mapping[str, str]) -> str | None:
    for key, choice in sorted(texts.items(), key=lambda item: -len(item[1])):
        if re.match(rf"{_OPENING}(?:(?:an?|the)\s+)?{_standing(choice)}", clause, re.IGNORECASE):
            return key
    key_first = rf"{_OPENING}(?:(?:option|choice|letter)\s+)?{_OPENING}(?P<key>{_any(texts)})(?![\w'’])"
    match = re.match(key_first, clause, re.IGNORECASE)
    if match and not _ARTICLE.match(clause, match.start("key")):
        return _key(match["key"], texts)
    return _named(clause, texts) or _of_value(clause, texts)


def _written_keys(text: str, texts: Mapping[str, str]) -> set[str]:
    keys = _any(texts)
    pattern = (
        rf"\((?P<a>{keys})\)"
        rf"|^[^\w\n]*(?P<b>{keys})(?:[).:]+(?=\s|$)|[^\w\n]*$)"
        rf"|\b(?:option|choice)\s+(?P<c>(?-i:{keys}))(?![\w'’])"
    )
    found = re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE)
    return {_key(match["a"] or match["b"] or match["c"], texts) for match in found}


def _interjected(text: str, texts: Mapping[str, str]) -> str | None:
    lead = r"(?:^|[.!?:]\s)[ \t]*(?:(?:so|therefore|thus|hence|overall|in conclusion),?\s+)?"
    pattern = rf"{lead}(?P<word>{_any(texts.values())})(?=[,.!;:]|\s*$)"
    last = _last(re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE))
    return next((key for key, choice in texts.items() if last and choice.lower() == last["word"].lower()), None)


def _named(text: str, texts: Mapping[str, str]) -> str | None:
    """The one choice whose text stands in `text`; "bank account" is not "bank"."""
    found = {key: choice.lower() for key, choice in texts.items() if re.search(_standing(choice), text, re.IGNORECASE)}
    return _only(key for key in found if not any(found[key] in found[other] for other in found if other != key))


def _of_value(clause: str, texts: Mapping[str, str]) -> str | None:
    """The one choice whose only number is the one that the clause gives."""
    said = _number_in(clause)
    return _only(
        key
        for key, choice in texts.items()
        if said is not None and said == _number_in(choice) and len(_NUMBER.findall(choice)) == 1
    )


def _standing(choice: str) -> str:
    return rf"(?<![\w-])(?<![0-9][.,/]){re.escape(choice)}(?!\w|[.,/][0-9])"


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _only(keys: Iterable[str]) -> str | None:
    found = set(keys)
    return found.pop() if len(found) == 1 else None


def _key(written: str, texts: Mapping[str, str]) -> str:
    return next(key for key in texts if key.lower() == written.lower())


def is_correct(predicted: str | None, reference: str, choices: Mapping[str, str] | None = None) -> bool:
    """Whether an answer as `extract` gives it is the reference: the key of a choice, or a number by value.

    Numbers are equal exactly or, where the reference is no integer, after
    rounding both to as many decimals as it has, but at least 2 (0.54 is not
    0.5) and at most 4, as `format_value` has; a reference such as 1/3 has 4.
    """
    if predicted is None:
        return False
    if choices:
        return predicted.strip().lower() == reference.strip().lower()
    value, expected = extract_number(predicted), extract_number(reference)
    if value is None or expected is None:
        return False
    if value == expected or re.fullmatch(r"[^./]*", reference):
        return value == expected
    digits = min(max(len(reference.partition(".")[2]) or 4, 2), 4)
    return round(value, digits) == round(expected, digits)
