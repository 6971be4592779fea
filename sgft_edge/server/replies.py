"""What the server replies, as JSON Schema: closed objects, so that no reply has a field more or less than these."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _maybe(kind: str) -> Schema:
    return {"type": [kind, "null"]}


_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number", "minimum": 0}
_END: Schema = {"enum": ["stop", "length"]}
_NULL: Schema = {"type": "null"}
_HEAD: dict[str, Schema] = {"id": _TEXT, "created": _COUNT, "model": _TEXT}
_CHOICE: dict[str, Schema] = {"index": {"const": 0}, "logprobs": _NULL}
_SOLVED: dict[str, Schema] = {
    "strategy": _TEXT,
    "solved_by": _TEXT,
    "why": _TEXT,
    "notes": _list(_TEXT),
    "guidance": _list(_TEXT),
    "answer": _maybe("string"),
    "votes": {"type": "object", "additionalProperties": _COUNT},
    "seconds": _NUMBER,
    "truncated": {"type": "boolean"},
    "steps": _list(_ref("Step")),
}
_EVENTS = ("guidance", "program", "step", "expression", "value", "answer", "note")
_DELTA: Schema = {
    "type": "object",
    "required": ["sgft"],
    "properties": {
        "role": {"const": "assistant"},
        "content": _TEXT,
        "reasoning_content": _TEXT,
        "sgft": {
            "oneOf": [
                _object(kind={"enum": list(_EVENTS)}, text=_TEXT),
                _object(kind={"const": "solution"}, **_SOLVED),
            ]
        },
    },
    "additionalProperties": False,
}


def _completion(kind: str, choice: Schema, **more: Schema) -> Schema:
    return _object(**_HEAD, object={"const": kind}, choices={**_list(choice), "minItems": 1, "maxItems": 1}, **more)


def _chunk(kind: str, choice: Schema) -> Schema:
    """A chunk of a stream; the one with the usage has no choice."""
    last = _object(**_HEAD, object={"const": kind}, choices={"type": "array", "maxItems": 0}, usage=_ref("Usage"))
    return {"oneOf": [_completion(kind, choice), last]}


SCHEMAS: dict[str, Schema] = {
    "Step": _object(text=_TEXT, expression=_maybe("string"), value=_maybe("string")),
    "Solution": {"description": "How a question was solved.", **_object(**_SOLVED)},
    "Usage": _object(
        prompt_tokens=_COUNT,
        completion_tokens=_COUNT,
        total_tokens=_COUNT,
        prompt_tokens_details=_object(cached_tokens=_COUNT),
    ),
    "ChatCompletion": _completion(
        "chat.completion",
        _object(
            **_CHOICE,
            finish_reason=_END,
            message=_object(
                role={"const": "assistant"},
                content=_TEXT,
                reasoning_content=_maybe("string"),
                refusal=_NULL,
                sgft=_ref("Solution"),
            ),
        ),
        usage=_ref("Usage"),
    ),
    "ChatCompletionChunk": _chunk(
        "chat.completion.chunk", _object(**_CHOICE, finish_reason={"enum": ["stop", "length", None]}, delta=_DELTA)
    ),
    "TextCompletion": _completion(
        "text_completion", _object(**_CHOICE, finish_reason=_END, text=_TEXT), usage=_ref("Usage")
    ),
    "TextCompletionChunk": _chunk(
        "text_completion", _object(**_CHOICE, finish_reason={"enum": ["stop", "length", None]}, text=_TEXT)
    ),
    "Model": {
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {
            "id": _TEXT,
            "object": {"const": "model"},
            "created": _COUNT,
            "owned_by": _TEXT,
            "strategies": _list(_TEXT),
        },
        "additionalProperties": False,
    },
    "Models": _object(object={"const": "list"}, data=_list(_ref("Model"))),
    "Health": _object(
        status={"const": "ok"},
        version=_TEXT,
        running=_COUNT,
        waiting=_COUNT,
        slots=_COUNT,
        memory_mb={"type": ["number", "null"], "description": "MB of 10**6 bytes."},
        peak_mb=_NUMBER,
        device=_TEXT,
    ),
    "Error": _object(
        error={
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": _TEXT,
                "type": {"enum": ["invalid_request_error", "rate_limit_error", "server_error"]},
                "param": _maybe("string"),
                "code": _maybe("string"),
                "id": {**_TEXT, "description": "Of an error that nobody foresaw: the log tells more under it."},
            },
            "additionalProperties": False,
        }
    ),
}
