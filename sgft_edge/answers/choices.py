"""Which choice of a question a free text gives as its answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sgft_edge.answers.claims import correction_of, last_claims, of_first_problem, without_denied
from sgft_edge.answers.quantities import quantities, said_in
from sgft_edge.text.markup import plain

_OPENING = r"[\s\"'“‘(\[]*"
_ARTICLE = re.compile(r"[Aa]\s+(?!(?:and|as|based|because|due|for|is|or|since|which|with)\b)[a-z]")


def extract_choice(text: str, choices: Mapping[str, str], *, whole: bool = True) -> str | None:
    r"""The key of the choice that a text gives as its final answer, None where it can't be told.

    In this order: what the last telling claim or its correction says (`\boxed{B}`, "answer is (b)",
    "answer: library", or the value of one choice); the one key that the last
    line writes as a key ("(B)", "B.", "B) library", "option B", or alone), else
    the one that the whole text does; a choice's text as an interjection that
    begins a sentence ("Yes, ...", "So no."), the last one; the one choice whose
    text stands in the text. The article in "A library" is no key.
    """
    text = of_first_problem(plain(text).strip())
    texts = {key: plain(choice).strip() for key, choice in choices.items()}
    for claim in last_claims(text):
        if key := _claimed(claim.said, texts):
            correction = correction_of(text, claim)
            return (correction and _corrected(*correction, texts)) or key
    return _unmarked(text, texts) if whole else None


def key_of(written: str, choices: Mapping[str, str]) -> str | None:
    """The key that `written` names for certain: the key itself, "(B)", "B.", or the whole text of one choice alone."""
    bare = re.sub(r"^\(?(\w+)[).:]?$", r"\1", written.strip())
    texts = {key: _folded(choice) for key, choice in choices.items()}
    for named in (written.strip(), bare):
        if keys := [key for key in choices if key == named] or [key for key in choices if key.lower() == named.lower()]:
            return _only(keys)
    return _only(key for key, text in texts.items() if text == _folded(written))


def _folded(text: str) -> str:
    return " ".join(plain(text).casefold().split()).rstrip(".")


def _unmarked(text: str, texts: Mapping[str, str]) -> str | None:
    lines = text.splitlines() or [""]
    return (
        _only(_written_keys(lines[-1], texts))
        or _only(_written_keys(text, texts))
        or _interjected(text, texts)
        or (None if set(map(str.lower, texts.values())) == {"yes", "no"} else _named(text, texts))
    )


def _corrected(said: str, outright: bool, texts: Mapping[str, str]) -> str | None:
    return (outright and _claimed(said[:80], texts)) or _only(_written_keys(said, texts))


def _claimed(said: str, texts: Mapping[str, str]) -> str | None:
    clause = without_denied(said)
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
    words = [match["word"].lower() for match in re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE)]
    return next((key for key, choice in texts.items() if words and choice.lower() == words[-1]), None)


def _named(text: str, texts: Mapping[str, str]) -> str | None:
    """The one choice whose text stands in `text`; "bank account" is not "bank"."""
    found = {key: choice.lower() for key, choice in texts.items() if re.search(_standing(choice), text, re.IGNORECASE)}
    return _only(key for key in found if not any(found[key] in found[other] for other in found if other != key))


def _of_value(clause: str, texts: Mapping[str, str]) -> str | None:
    """The one choice whose only quantity is the one that the clause gives."""
    if not (said := said_in(clause, list(quantities(clause)))):
        return None
    values = {key: list(quantities(choice)) for key, choice in texts.items()}
    return _only(key for key, found in values.items() if len(found) == 1 and said[0].equals(found[0]))


def _standing(choice: str) -> str:
    return rf"(?<![\w-])(?<![0-9][.,/]){re.escape(choice)}(?!\w|[.,/][0-9])"


def _any(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _only(keys: Iterable[str]) -> str | None:
    found = set(keys)
    return found.pop() if len(found) == 1 else None


def _key(written: str, texts: Mapping[str, str]) -> str:
    return next(key for key in texts if key.lower() == written.lower())
