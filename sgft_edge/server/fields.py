"""The fields of a request: what wire.py reads, and how the server's own description of itself tells of them.

One table for both: a field's `kind` is the type that wire.py holds it to, the rest is JSON Schema. Null stands for a
field that is not there. `tests/server/test_openapi.py` holds the bounds against what the code refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sgft_edge.reasoning.conversation import ROLES
from sgft_edge.reasoning.question import MAX_CHARACTERS, MAX_KEY
from sgft_edge.reasoning.settings import OPERANDS, PLANS, STRATEGIES

REFUSED: Mapping[str, tuple[object, ...]] = {  # what we do not have, and the values that do not ask for it
    "n": (None, 1),
    "logprobs": (None, False, 0),
    "tools": (None, []),
    "functions": (None, []),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
}
TEXTS = ("text", "input_text", "output_text")
STOPS = 16
STOP_LENGTH = 200

_KINDS = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
_TEXT = {"type": "string", "maxLength": MAX_CHARACTERS, "pattern": r"\S"}
_PARTS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"enum": list(TEXTS)}, "text": {"type": "string"}},
    },
}
_SAID = {"description": "A text, or parts that are text.", "anyOf": [{"type": "string"}, _PARTS]}
_MESSAGE = {
    "anyOf": [
        {
            "type": "object",
            "required": ["role", "content"],
            "properties": {"role": {"enum": [*ROLES, "developer"]}, "content": _SAID},
        },
        {
            "type": "object",
            "required": ["role"],
            "properties": {"role": {"const": "assistant"}, "content": {"anyOf": [_SAID, {"type": "null"}]}},
        },
    ]
}
_OPTION = {"type": ["string", "number"], "pattern": r"\S"}
_CHOICES = [  # none, or at least two
    {
        "type": "object",
        "propertyNames": {"pattern": f"^[A-Za-z0-9]{{1,{MAX_KEY}}}$"},
        "additionalProperties": _OPTION,
        "not": {"minProperties": 1, "maxProperties": 1},
    },
    {"type": "array", "items": _OPTION, "maxItems": 26, "not": {"minItems": 1, "maxItems": 1}},
    {"type": "string", "pattern": r"^[\s;]*$|[^\s;][^;]*;[\s;]*[^\s;]", "examples": ["A=yes;B=no"]},
    {"type": "null"},
]
_NAMED_SCHEMA = {"type": ["object", "null"], "properties": {"schema": {"type": ["object", "null"]}}}
_FORM = {
    "required": ["type"],
    "properties": {
        "type": {"enum": ["text", "json_object", "json_schema"]},
        "json_schema": _NAMED_SCHEMA,
        "schema": {"type": ["object", "null"], "description": "The schema, for clients that put it here."},
    },
}
_STOP = {"type": "string", "maxLength": STOP_LENGTH}
_STOP_LIST = {"type": "array", "items": {**_STOP, "minLength": 1}, "maxItems": STOPS}


@dataclass(frozen=True)
class Field:
    """A field: what it is for, its `kind` where it has one, its other bounds as JSON Schema."""

    text: str
    kind: type | None = None
    bounds: Mapping[str, Any] = field(default_factory=dict)

    @property
    def schema(self) -> dict[str, Any]:
        """The field as JSON Schema."""
        kind = {} if self.kind is None else {"type": [_KINDS[self.kind], "null"]}
        return {"description": self.text, **kind, **self.bounds}


def _one_of(*names: str) -> dict[str, Any]:
    return {"enum": [*names, None]}


def _equal(plain: tuple[object, ...]) -> list[object]:
    """These values and those that Python takes for the same: 1 is true, 0 is false."""
    numbers = [value for value in plain if isinstance(value, int)]
    others = [value for value in plain if not isinstance(value, int)]
    return [*others, *{int(number) for number in numbers}, *{bool(number) for number in numbers}]


_LIMIT = {"minimum": -1, "not": {"const": 0}}
_SHARED = {
    "model": Field("A model of /v1/models, a strategy behind its last colon; the first where absent.", str),
    "strategy": Field("How a question is answered; a text completion has one way alone.", str, _one_of(*STRATEGIES)),
    "plan": Field("For strategy exact: when the guidance is written.", str, _one_of(*PLANS)),
    "operands": Field("For strategy exact: which numbers an expression may hold.", str, _one_of(*OPERANDS)),
    "max_tokens": Field("An upper bound of a free answer; -1 for no other than the server's.", int, _LIMIT),
    "max_completion_tokens": Field("The same, before max_tokens.", int, _LIMIT),
    "votes": Field("Answers to one question, of which the most frequent stands.", int, {"minimum": 1}),
    "temperature": Field("0, where absent, is greedy.", float, {"minimum": 0, "maximum": 10}),
    "top_p": Field("A probability; 1 where absent.", float, {"minimum": 0, "maximum": 1}),
    "min_p": Field("A probability; 0 where absent.", float, {"minimum": 0, "maximum": 1}),
    "seed": Field("The same request gets the same text each time.", int),
    "reproducible": Field("The same without a seed, or not with one.", bool),
    "stop": Field("A free answer ends before any of these.", bounds={"anyOf": [_STOP, _STOP_LIST, {"type": "null"}]}),
    "response_format": Field("The form of the final text.", dict, _FORM),
    "stream": Field("Whether the reply comes as server-sent events.", bool),
    "stream_options": Field(
        "include_usage: whether the last chunk brings the usage.",
        dict,
        {"properties": {"include_usage": {"type": ["boolean", "null"]}}},
    ),
    **{
        name: Field("Not had here: another value is an error.", bounds={"enum": _equal(plain)})
        for name, plain in REFUSED.items()
    },
}
CHAT: Mapping[str, Field] = {
    "messages": Field("The conversation; the user's is the last.", list, {"items": _MESSAGE, "minItems": 1}),
    "choices": Field("The options of a question with several, by letter or in order.", bounds={"anyOf": _CHOICES}),
    "guidance": Field("A guidance to follow instead of one that is written.", str),
    **_SHARED,
}
_ONE_TEXT = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1}
COMPLETION: Mapping[str, Field] = {
    "prompt": Field("A text, alone or in a list.", bounds={"anyOf": [_TEXT, _ONE_TEXT]}),
    **_SHARED,
}
KINDS: Mapping[str, type | None] = {name: found.kind for name, found in {**CHAT, **COMPLETION}.items()}
