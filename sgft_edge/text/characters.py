"""Characters of any script as the ASCII digits and marks that they stand for."""

from __future__ import annotations

import re
import unicodedata

_COMMA = re.compile(r"[，､،](?!\d{3}(?!\d))")  # before three digits it separates thousands
_VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞↉])")
_THIN = re.compile("(?<=[0-9])[\u00a0\u2007\u2009\u202f](?=[0-9]{3}(?![0-9]))")
_MARKS = {
    "−": "-", "‐": "-", "‑": "-", "﹣": "-", "٫": ".", "٬": ",", "⁄": "/", "∕": "/", "٪": "%", "﹪": "%", "∶": ":",
    "。": ". ", "｡": ". ", "、": ", ", "！": "! ", "？": "? ", "；": "; ", "’": "'", "＇": "'",
}  # fmt: skip


class _Table(dict[int, str]):
    """For `str.translate`: what was looked up once is kept."""

    def __missing__(self, code: int) -> str:
        self[code] = _shown(chr(code))
        return self[code]


_TABLE = _Table({ord(char): shown for char, shown in _MARKS.items()})


def in_ascii(text: str) -> str:
    """A text with the digits, signs and separators of all scripts in ASCII: `٣٫٥` as `3.5`, `2½` as `2 1/2`."""
    if text.isascii():
        return text
    text = _VULGAR.sub(" ", _COMMA.sub(", ", text))
    return _THIN.sub("", text.translate(_TABLE))


def _shown(char: str) -> str:
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    compatible = unicodedata.normalize("NFKC", char)
    if "\N{FRACTION SLASH}" in compatible and len(compatible) > 2:
        return compatible.replace("\N{FRACTION SLASH}", "/")
    return compatible if "\uff01" <= char <= "\uff5e" or char in "￥￡" else char
