"""LaTeX, Markdown and typography as the plain characters that a reader sees."""

from __future__ import annotations

import re

from sgft_edge.text.characters import in_ascii

_NESTED = 4  # commands inside each other
_GROUP = r"\s?\{([^{}]{0,300})\}"
_STYLED = re.compile(
    rf"\\(?:text[a-z]{{0,6}}|math[a-z]{{2,4}}|mbox|operatorname|boldsymbol|bm|emph|underline){_GROUP}|\\overline{_GROUP}"
)
_FRACTION = re.compile(rf"\\[dtc]?frac(?:{_GROUP}|\s?([0-9]))(?:{_GROUP}|\s?([0-9]))")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_POWER = re.compile("⁻?[⁰¹²³⁴-⁹]+")
_SIMPLE = re.compile(r"\s*-?[0-9][0-9.,]*\s*")
_RULES = [
    (re.compile(pattern), shown)
    for pattern, shown in (
        (r"–(?=\$?[0-9])", "-"),
        (r"\{,\}", ","),
        (r"\\\\", "\n"),
        (r"\\(?:times|cdot)(?![a-z])", "×"),
        (r"\\div(?![a-z])", "÷"),
        (r"\\(?:approx|simeq)(?![a-z])", "≈"),
        (r"\\sqrt(?![a-z])", "√"),
        (r"\\pi(?![a-z])", "π"),
        (r"\^?\{?\\(?:circ|degree)(?![a-z])\}?", "°"),
        (r"\\(?:left|right|[Bb]igg?[lr]?|displaystyle|q?quad)(?![a-z])|\\[,!;:()\[\]]", ""),
        (r"\\ ", " "),
        (r"\\([$%#&_])", r"\1"),
        (r"<<[^<>\n]{0,200}>>|~~[^~\n]{1,200}~~", ""),  # a calculator's notes, and what is struck out
        (r"<answer>", "\nAnswer: "),
        (r"</?[a-z]{1,10}\s?/?>", ""),
        (r"(?<=[0-9)])\s?\*\*\s?(?=[0-9(-])", "^"),
        (r"\*\*|__(?!\w)|(?<!\w)__|`", ""),
        (r"(?<![\w*)])\*(?=[^\s*])([^*\n]{1,200})(?<=\S)\*(?![\w*(])", r"\1"),
        (r"[ \t\u00a0\u2000-\u200b\u202f\u3000]+", " "),
        (r"\n(?: ?\n){2,}", "\n\n"),
    )
]


def plain(text: str) -> str:
    """A text without markup: `\\(\\frac12\\)` and `**½**` as `1/2`, `10⁵` as `10^5`; runs of spaces count as one.

    `\\boxed{...}` stays, since it says something.
    """
    text = _POWER.sub(lambda match: f"^{match[0].translate(_SUPERSCRIPTS)}", in_ascii(text))
    for _ in range(_NESTED):
        simpler = _FRACTION.sub(_quotient, _STYLED.sub(lambda match: f" {match[1] or match[2] or ''} ", text))
        if simpler == text:
            break
        text = simpler
    for pattern, shown in _RULES:
        text = pattern.sub(shown, text)
    return text


def _quotient(match: re.Match[str]) -> str:
    top, bottom = match[1] or match[2] or "", match[3] or match[4] or ""
    before = match.string[max(0, match.start() - 2) : match.start()].strip()
    if _SIMPLE.fullmatch(top) and _SIMPLE.fullmatch(bottom):
        return f"{' ' if before[-1:].isdigit() else ''}{top.strip()}/{bottom.strip()}"
    return f"({top})/({bottom})"
