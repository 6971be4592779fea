"""The server's description of itself: OpenAPI 3.1, of the fields in fields.py and the replies in replies.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgft_edge import __version__
from sgft_edge.server.fields import CHAT, COMPLETION, Field
from sgft_edge.server.metrics import CONTENT_TYPE as METRICS
from sgft_edge.server.replies import SCHEMAS

_STATUSES = {  # of errors, all of which have one form
    400: "The request is wrong.",
    401: "The key is missing or wrong.",
    403: "The Host or the Origin is not one that may ask.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "The queue is full.",
    500: "An error that nobody foresaw.",
    503: "The engine failed.",
    504: "Not answered in time.",
}
_STREAM = "With `stream`: server-sent events, each `data:` a {} or an Error, the last `[DONE]`."
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_PATH = {**_NAME, "name": "path"}

Described = dict[str, Any]


def description(max_votes: int, keyed: bool) -> Described:
    """The description of a server with these limits; `keyed` where it asks for a key."""
    chat, completion = _body(CHAT, "messages", max_votes), _body(COMPLETION, "prompt", max_votes)
    schemas = {**SCHEMAS, "ChatRequest": chat, "CompletionRequest": completion}
    key: list[Described] = [{"key": []}] if keyed else []
    components: Described = {
        "schemas": schemas,
        "responses": {
            str(status): {"description": text, "content": _content("application/json", "Error"), **_headers(status)}
            for status, text in _STATUSES.items()
        },
    }
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sgft-edge",
            "version": __version__,
            "description": "OpenAI's interface; fields that are not described are ignored.",
        },
        "paths": {
            "/v1/chat/completions": {"post": _asking("ChatRequest", "ChatCompletion", key)},
            "/v1/completions": {"post": _asking("CompletionRequest", "TextCompletion", key)},
            "/v1/models": {"get": _getting("The models.", "Models", key, errors=(401,))},
            "/v1/models/{name}": {"get": _getting("A model.", "Model", key, _NAME, errors=(401, 404))},
            "/health": {"get": _getting("How much is going on.", "Health")},
            "/openapi.json": {"get": _getting("This description.", None)},
            "/metrics": {
                "get": {
                    "responses": {
                        "200": {"description": "Counts.", "content": _content(METRICS, None)},
                        **_errors(401),
                    },
                    **_security(key),
                }
            },
            "/": {"get": _file("The page.", "text/html; charset=utf-8")},
            "/web/{path}": {"get": _file("A file of the page.", "*/*", _PATH)},
        },
        "components": components,
    }


def _body(fields: Mapping[str, Field], required: str, max_votes: int) -> Described:
    properties = {name: found.schema for name, found in fields.items()}
    properties["votes"]["maximum"] = max_votes
    if "null" in properties[required].get("type", ()):
        properties[required]["type"] = [kind for kind in properties[required]["type"] if kind != "null"]
    return {"type": "object", "required": [required], "properties": properties}


def _asking(request: str, reply: str, key: list[Described]) -> Described:
    stream = {"text/event-stream": {"schema": {"description": _STREAM.format(f"{reply}Chunk")}}}
    return {
        "requestBody": {"required": True, "content": _content("application/json", request)},
        "responses": {
            "200": {"description": "The answer.", "content": _content("application/json", reply) | stream},
            **_errors(400, 401, 404, 408, 413, 415, 429, 503, 504),
        },
        **_security(key),
    }


def _getting(
    text: str,
    reply: str | None,
    key: list[Described] | None = None,
    *parameters: Described,
    errors: tuple[int, ...] = (),
) -> Described:
    return {
        "parameters": list(parameters),
        "responses": {"200": {"description": text, "content": _content("application/json", reply)}, **_errors(*errors)},
        **_security(key or []),
    }


def _file(text: str, kind: str, *parameters: Described) -> Described:
    return {
        "parameters": list(parameters),
        "responses": {"200": {"description": text, "content": _content(kind, None)}, **_errors(404)},
    }


def _content(kind: str, name: str | None) -> Described:
    return {kind: {} if name is None else {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _errors(*statuses: int) -> Described:
    """Errors by status; any request may come from where none may come from, or meet what nobody foresaw."""
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted({*statuses, 403, 500})}


def _headers(status: int) -> Described:
    if status == 429:
        return {"headers": {"Retry-After": {"schema": {"type": "integer"}, "required": True}}}
    if status == 401:
        return {"headers": {"WWW-Authenticate": {"schema": {"const": "Bearer"}, "required": True}}}
    return {}


def _security(key: list[Described]) -> Described:
    return {"security": key} if key else {}
