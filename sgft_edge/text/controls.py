"""Text as it may be shown: what would steer a terminal is spelt out."""

from __future__ import annotations

# C0 and C1, with ESC, CSI and DEL among them: https://www.unicode.org/charts/PDF/U0080.pdf
_SPELT = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    r"""A text whose control characters are spelt out: ESC is `\x1b`. Ends of lines and tabs stay."""
    return text.replace("\r\n", "\n").translate(_SPELT)


def on_one_line(text: str) -> str:
    """The same, with every run of spaces, tabs and ends of lines as one space."""
    return visible(" ".join(text.split()))
