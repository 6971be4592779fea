"""JSON schemas that hold a text, and the bounds that they keep.

A schema may come from a stranger, and a few characters of one, such as `a{300000000}`, can stand for a grammar that no
machine holds. So what makes grammars large is bounded here, before anything is made of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sgft_edge.errors import InputError

_MAX_TEXT = 65_536
_MAX_DEPTH = 64
_MAX_PATTERN = 1_000
_MAX_WEIGHT = 2_000
_MAX_NESTING = 50

_ATOM = re.compile(
    r"\\(?:[pPxu]\{[^}]*\}|.)"  # an escape, with what stands in its braces
    r"|\[\^?\]?(?:\\.|[^\]\\])*\]"  # a class of characters
    r"|\{(?P<least>\d+)(?:,(?P<most>\d*))?\}"  # a repetition
    r"|.",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """A JSON schema as text; `JsonSchema.of` makes one that keeps the bounds."""

    text: str

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> JsonSchema:
        """A schema of at most 65,536 characters and 64 levels.

        A pattern has at most 1,000 characters and 50 groups in each other, and 2,000 characters where its repetitions
        are written out. Raises `InputError`.
        """
        for value, depth in _values(schema):
            if depth > _MAX_DEPTH:
                raise InputError(f"schema: expected at most {_MAX_DEPTH} levels, found more: flatten it")
            for pattern in _patterns(value):
                _check(pattern)
        ours = {name: value for name, value in schema.items() if name != "x-guidance"}  # settings of llguidance
        try:
            text = json.dumps(ours, ensure_ascii=False, allow_nan=False)
            text.encode()
        except ValueError as e:
            raise InputError(f"schema: expected JSON, found something else ({e}): correct it") from e
        if len(text) > _MAX_TEXT:
            raise InputError(f"schema: expected at most {_MAX_TEXT} characters, found {len(text)}: shorten it")
        return cls(text)


Form = str | JsonSchema
"""What a text is held to: a grammar in GBNF, or a JSON schema."""

ANY_OBJECT = JsonSchema('{"type": "object"}')


def _values(value: Any) -> Iterator[tuple[Any, int]]:
    """Every value in a JSON value, itself included, with how deep it lies."""
    stack = [(value, 0)]
    while stack:
        value, depth = stack.pop()
        yield value, depth
        inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        stack += [(inner, depth + 1) for inner in inside]


def _patterns(value: Any) -> list[str]:
    """The regular expressions that stand directly in a JSON value."""
    if not isinstance(value, Mapping):
        return []
    named = value.get("patternProperties")
    return [
        *([value["pattern"]] if isinstance(value.get("pattern"), str) else []),
        *(named if isinstance(named, Mapping) else []),
    ]


def _check(pattern: str) -> None:
    """Raise `InputError` for a regular expression that passes the bounds."""
    if len(pattern) > _MAX_PATTERN:
        raise InputError(f"pattern: expected at most {_MAX_PATTERN} characters, found {len(pattern)}: shorten it")
    groups, last = [0], 0
    for atom in _ATOM.finditer(pattern):
        if atom["least"] is not None:
            groups[-1] += last * (max(1, int(atom["least"]), int(atom["most"] or 0)) - 1)
            last *= max(1, int(atom["least"]), int(atom["most"] or 0))
        elif atom[0] == "(":
            groups.append(0)
        else:
            last = groups.pop() if atom[0] == ")" and len(groups) > 1 else 1
            groups[-1] += last
        if len(groups) > _MAX_NESTING or max(groups) > _MAX_WEIGHT:
            found = f"{pattern[:40]!r}, which asks for more"
            limit = f"at most {_MAX_WEIGHT} characters, repetitions written out, and {_MAX_NESTING} nested groups"
            raise InputError(f"pattern: expected {limit}, found {found}: repeat less")
