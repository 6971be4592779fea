"""Where a final answer is read from free model text, and compared with a reference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from sgft_edge.answers.choices import extract_choice as extract_choice  # strategies.py takes it from here
from sgft_edge.answers.claims import Claim, claims, correction_of, is_denied, last_claims, of_first_problem
from sgft_edge.answers.quantities import Quantity, quantities, quantities_in_words, said_in, value_of
from sgft_edge.text.markup import plain

_LAST = 20_000  # characters at the end of a text in which its last quantity is looked for
_LONGEST = 300  # characters of a short answer
_ITEM = re.compile(r"(?:^|\n) ?$")  # before the number of a list's item
_ITEM_END = re.compile(r"[.)]\s")


def extract(text: str, choices: Mapping[str, str] | None = None, *, whole: bool = True) -> str | None:
    """The final answer of a text: the key of a choice or, without choices, a quantity in short.

    A number is written as `format_value` writes it, others are `5:30 pm`, `3:2`, `(3, 4)`. Of a text that is not
    `whole`, cut off at the limit on tokens, only what it marks as its answer counts.
    """
    if choices:
        return extract_choice(text, choices, whole=whole)
    found = _read(text, whole=whole)
    return None if found is None else found.shown


def extract_number(text: str, *, whole: bool = True) -> Fraction | None:
    """The number that a text gives as its final answer, None where it has none or something else.

    It is the number of the last claim (see `claims.py`) that has one, or of what corrects that claim, else the last
    number of the text that it does not deny. A box without a number, or with several and no word, says that there is
    none. A percentage stands as its literal number: 20% is 20.
    """
    found = _read(text, whole=whole)
    return found.parts[0] if found is not None and found.kind == "number" else None


def _read(text: str, *, whole: bool = True) -> Quantity | None:
    text = of_first_problem(plain(text))
    for claim in last_claims(text):
        if claim.of_choice or not (whole or claim.whole):
            continue
        found = _claimed(claim.said)
        if claim.boxed and claim.said.strip():
            return found
        if found is not None:
            return _corrected(text, claim) or found
    return _last(text) if whole else None


def _claimed(said: str) -> Quantity | None:
    """What a claim says: the first quantity that is not denied and no operand, else the value of what is to compute."""
    for found in (quantities, quantities_in_words):
        affirmed = [quantity for quantity in found(said) if not is_denied(said, quantity.start)]
        if affirmed:
            standing = said_in(said, affirmed)
            return standing[0] if standing else value_of(said)
    return None


def _corrected(text: str, claim: Claim) -> Quantity | None:
    correction = correction_of(text, claim)
    if correction is None:
        return None
    said, outright = correction
    return _claimed(said[:80]) if outright else _last(said)


def _last(text: str) -> Quantity | None:
    """The last quantity of a text in digits, where it has none in words; the numbers of list items are none."""
    text = text[-_LAST:]
    in_digits = list(quantities(text))
    found = [quantity for quantity in in_digits if not _is_item(text, quantity)]
    if not in_digits:
        found = [quantity for quantity in quantities_in_words(text) if text[quantity.start : quantity.end] != "one"]
    return next((quantity for quantity in reversed(found) if not is_denied(text, quantity.start)), None)


def _is_item(text: str, quantity: Quantity) -> bool:
    before, after = text[max(0, quantity.start - 2) : quantity.start], text[quantity.end : quantity.end + 2]
    return bool(_ITEM.search(before) and _ITEM_END.fullmatch(after))


def is_reference(text: str) -> bool:
    """Whether a text is one quantity, so that answers can be held to it."""
    shown = plain(text)
    if next(claims(shown), None):
        return _read(text) is not None
    if len(shown) > _LONGEST:
        return False
    found = list(quantities(shown)) or list(quantities_in_words(shown))
    return len(found) == 1 or len(said_in(shown, found)) == 1


def is_correct(predicted: str | None, reference: str, choices: Mapping[str, str] | None = None) -> bool:
    """Whether an answer as `extract` gives it is the reference: the key of a choice, or a quantity by value.

    Both are read by the same rules. Times, ratios and lists are equal as a whole. Numbers are equal exactly or, where
    the reference is no integer, after rounding both to as many decimals as it has, but at least 2 (0.54 is not 0.5)
    and at most 4, as `format_value` has; a reference such as 1/3 has 4.
    """
    if predicted is None:
        return False
    if choices:
        return predicted.strip().lower() == reference.strip().lower()
    value, expected = _quantity(predicted), _quantity(reference)
    return value is not None and expected is not None and value.equals(expected)


def _quantity(text: str) -> Quantity | None:
    """The quantity that a short answer or a reference is."""
    shown = plain(text)
    return _read(text) if next(claims(shown), None) else _claimed(shown[:_LONGEST])
