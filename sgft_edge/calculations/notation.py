"""Expressions as people write them in one language, taken apart into what `arithmetic.evaluate` reads."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sgft_edge.calculations.phrases import Language
from sgft_edge.text.numerals import number_in_chinese, number_in_words

_TYPOGRAPHY = str.maketrans("×·⋅∙✕✖÷∕⁄–‐‑’‘", "******///---''")
_SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_SIGNS = {"^": "**", "−": "-", "x": "*", ":": "/"}
_ROOTS = {"√": "sqrt", "∛": "cbrt"}
_READERS = {"English": number_in_words, "Chinese": number_in_chinese}  # of numbers in words that combine

_END = r"(?![0-9]|[.,'][0-9])"  # a number goes on no further
_ONE_TO_999 = "[1-9][0-9]{0,2}"
_POINTED = rf"(?:{_ONE_TO_999}(?:,[0-9]{{3}})+|0|[1-9][0-9]*)(?:\.[0-9]+)?{_END}|\.[0-9]+{_END}"
# Where commas are decimals', only what has one reading: neither 1,234 nor 1.234.
_COMMAED = (
    rf"{_ONE_TO_999}(?:(?:\.[0-9]{{3}})+,[0-9]+|(?:,[0-9]{{3}})+\.[0-9]+){_END}"
    rf"|{_ONE_TO_999}(?:(?:\.[0-9]{{3}}){{2,}}|(?:,[0-9]{{3}}){{2,}}){_END}"
    rf"|{_ONE_TO_999}(?: [0-9]{{3}})+(?:,[0-9]+)?(?!/){_END}"
    rf"|(?:0[.,]|[1-9][0-9]*[.,](?![0-9]{{3}}(?![0-9])))[0-9]+{_END}"
    rf"|(?:0|[1-9][0-9]*){_END}"
)
_MIXED = r"(?<!/)(?P<whole>[1-9][0-9]{0,5}) (?P<top>[1-9][0-9]?)/(?P<bottom>[1-9][0-9]{0,2})(?![0-9/.,])"
_VULGAR = "(?P<count>[1-9][0-9]*)? ?(?P<vulgar>[¼½¾⅐-⅞])"


@dataclass(frozen=True, slots=True)
class Token:
    """A number, percentage, operator, power, sign, root, or parenthesis (open, close).

    `text` is what `evaluate` reads; `written` are the digits or the sign in the question, empty where it has words;
    `apart` says whether spaces stand around it.
    """

    kind: str
    text: str
    written: str = ""
    apart: bool = True


class Notation:
    """How expressions are written in a language."""

    def __init__(self, language: Language) -> None:
        self._number_in_words = _READERS.get(language.name)
        self._commas = language.decimal_comma
        self._operators = {plain(phrase): operator for phrase, operator in language.operators.items()}
        self._numbers = {plain(word): number for word, number in language.numbers.items()}
        number = _COMMAED if self._commas else _POINTED
        before, after = ("(?<![a-z0-9])", "(?![a-z0-9])") if language.spaced else ("", "")
        self._token = re.compile(
            f" ?(?:{_MIXED}|{_VULGAR}|(?P<number>{number})|(?P<word>{before}{any_of(self._numbers)}{after})"
            f"|(?P<phrase>{before}{any_of(self._operators)}{after})|(?P<power>⁻?[⁰¹²³⁴-⁹]+)"
            r"|(?P<root>sqrt|cbrt|[√∛])|(?P<mark>[()%])|(?P<sign>\*\*|(?<= ):(?= )|(?<![a-z])-|[−+*x/^]))"
        )

    def tokens(self, text: str) -> list[Token] | None:
        """A plain text as tokens, None where it has anything else."""
        tokens: list[Token] = []
        position = 0
        while position < len(text):
            found = self._token_at(text, position)
            if found is None or (token := _in_place(found[0], tokens, text[found[1] : found[1] + 1])) is None:
                return None
            tokens.append(token)
            position = found[1]
        return tokens

    def _token_at(self, text: str, position: int) -> tuple[Token, int] | None:
        """The token at a position, and where it ends."""
        if match := self._token.match(text, position):
            token = self._token_of(match)
            return (token, match.end()) if token else None
        position += text.startswith(" ", position)
        if self._number_in_words and (number := self._number_in_words(text, position)):
            return Token("number", str(number[0])), number[1]
        return None

    def _token_of(self, match: re.Match[str]) -> Token | None:
        written = match[0].removeprefix(" ")
        if match["whole"]:
            is_proper = int(match["top"]) < int(match["bottom"])
            return Token("number", f"({match['whole']} + {match['top']} / {match['bottom']})") if is_proper else None
        if match["vulgar"]:
            fraction = unicodedata.normalize("NFKC", match["vulgar"]).replace("⁄", " / ")
            return Token("number", f"({match['count']} + {fraction})" if match["count"] else f"({fraction})")
        if match["number"]:
            return Token("number", self._digits(written), written)
        if match["word"]:
            return Token("number", str(self._numbers[written]))
        if match["power"]:
            return Token("power", f"** {written.translate(_SUPERSCRIPTS)}")
        if match["root"]:
            return Token("root", _ROOTS.get(written, written))
        if match["mark"]:
            return Token({"(": "open", ")": "close", "%": "percent"}[written], written)
        if match["phrase"]:
            text = self._operators[written]
            return Token("percent" if text == "%" else "power" if text[-1].isdigit() else "operator", text)
        apart = match[0] != written and match.string.startswith(" ", match.end())
        return Token("operator", _SIGNS.get(written, written), written, apart)

    def _digits(self, written: str) -> str:
        """A number's digits with a point before its decimals and no thousands separators."""
        if not self._commas:
            return written.replace(",", "")
        whole, mark, decimals = written.rpartition(max(",.", key=written.rfind))
        if not mark or mark in whole:  # several of a kind separate thousands
            whole, decimals = written, ""
        return ".".join(filter(None, (re.sub("[., ]", "", whole), decimals)))


def _in_place(token: Token, before: list[Token], following: str) -> Token | None:
    """A token where it stands: a minus that is a sign, a number with its percent sign or under a root.

    None where a sign stands in a place in which it would be a slip or a list's dash: `--5`, `+5`, `- 5`.
    """
    last = before[-1] if before else None
    if token.kind == "percent":
        return Token("percentage", f"({before.pop().text} / 100)") if last and last.kind == "number" else None
    if token.kind == "number" and last and last.kind == "root":
        return token if token.text.startswith("(") else replace(token, text=f"({token.text})")
    if token.kind != "operator" or (last and last.kind in ("number", "percentage", "close", "power")):
        return token
    after_operator = last is not None and last.kind == "operator" and (last.apart or last.text[0] in "*/")
    has_place = last is None or last.kind == "open" or after_operator
    is_sign = token.text == "-" and has_place and not (token.written and following == " ")
    return replace(token, kind="sign") if is_sign else None


def joined(tokens: Sequence[Token]) -> str:
    """Tokens as an expression that `evaluate` reads."""
    text, close_to_next = "", True
    for token in tokens:
        text += token.text if close_to_next or token.kind == "close" else f" {token.text}"
        close_to_next = token.kind in ("open", "sign", "root")
    return text


def any_of(phrases: Iterable[str]) -> str:
    """A pattern of any of these phrases, the longest first; of none, one that nothing matches."""
    return f"(?:{'|'.join(map(re.escape, sorted(map(plain, phrases), key=len, reverse=True))) or '(?!)'})"


def plain(text: str) -> str:
    """A text in lowercase without accents, ASCII where that means the same, each character at its place."""
    text = text.translate(_TYPOGRAPHY)
    return text.lower() if text.isascii() else "".join(map(_plain_character, text))


def _plain_character(char: str) -> str:
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    compatible = unicodedata.normalize("NFKD", char.lower())
    is_more = unicodedata.category(char) == "No" or char == "⁻"  # ½, ² and ⁻¹ are not their digits alone
    return char if is_more or not all(map(unicodedata.combining, compatible[1:])) else compatible[0]
