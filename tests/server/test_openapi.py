"""The server's description of itself: of all that is read and nothing else, with bounds and replies that are so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from live import Assistant, assistant
from starlette.routing import Mount, Route

from sgft_edge.server import wire
from sgft_edge.server.app import application
from sgft_edge.server.wire import ApiError
from sgft_edge.server.work import Limits

HELLO = [{"role": "user", "content": "Hello"}]
ASKS = {True: {"messages": HELLO}, False: {"prompt": "Once"}}


@pytest.fixture(scope="module")
def server(llama: Path) -> Iterator[Assistant]:
    with assistant(llama) as server:
        yield server


@pytest.fixture(scope="module")
def described(server: Assistant) -> dict[str, Any]:
    return server.request("GET", "/openapi.json")[2]


class Noting(dict[str, Any]):
    """A body that notes which of its fields are read."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(body)
        self.read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)


def asked(chat: bool, **fields: Any) -> wire.ChatRequest:
    return wire.asked({**ASKS[chat], **fields}, chat, ["tiny"], Limits().max_tokens, Limits().votes)


@pytest.mark.parametrize("chat", [True, False])
def test_every_field_that_is_read_is_described_and_no_other(chat: bool, described: dict[str, Any]) -> None:
    body = Noting(ASKS[chat])
    wire.asked(body, chat, ["tiny"], Limits().max_tokens, Limits().votes)
    request = described["components"]["schemas"]["ChatRequest" if chat else "CompletionRequest"]
    assert body.read == set(request["properties"])


PROBES = [
    *(None, True, False, 0, 1, -1, -2, 2, 3, 8, 9, 11, 10, 10.5, 1.5, 0.5, -0.1, 16.0, 10**30, [], {}, [1], {"a": 1}),
    *("", "x", "auto", "exact", "chat", "stepwise", "first", "free", "grounded", "tiny", "tiny:cot", "x" * 201),
    *([""], ["x"] * 16, ["x"] * 17, ["x" * 200], ["x" * 201], ["x", "y"], "x" * 200),
    *(
        {"type": "text"},
        {"type": "odd"},
        {"type": "json_object"},
        {"A": "yes", "B": 2},
        {"A": []},
        {"A b": "x", "C": "y"},
    ),
]


@pytest.mark.parametrize("chat", [True, False])
def test_what_is_described_is_taken_and_nothing_else(chat: bool, described: dict[str, Any]) -> None:
    """Of each field by itself; how fields depend on each other is in words."""
    name = "ChatRequest" if chat else "CompletionRequest"
    for field, schema in described["components"]["schemas"][name]["properties"].items():
        allowed = jsonschema_rs.Draft202012Validator(schema)
        probes = [value for value in PROBES if field != "model" or not isinstance(value, str)]
        found = [value for value in probes if taken(chat, field, value)]
        assert found == list(filter(allowed.is_valid, probes)), field


def taken(chat: bool, field: str, value: Any) -> bool:
    try:
        asked(chat, **{field: value})
    except ApiError:
        return False
    return True


def test_every_path_that_is_served_is_described(server: Assistant, described: dict[str, Any]) -> None:
    served = {
        f"{route.path}/{{path}}" if isinstance(route, Mount) else route.path.replace(":path", "")
        for route in application({"tiny": server.solver}).routes
        if isinstance(route, Mount | Route)
    }
    assert served == set(described["paths"])


@pytest.mark.parametrize("chat", [True, False])
def test_the_chunks_of_a_stream_are_as_described(server: Assistant, described: dict[str, Any], chat: bool) -> None:
    name = "ChatCompletionChunk" if chat else "TextCompletionChunk"
    chunk = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    ways: list[dict[str, Any]] = [{"strategy": strategy} for strategy in ("chat", "cot", "sg", "program", "exact")]
    guided = {"strategy": "exact", "guidance": "1. Find the first number.\n2. Find all of them."}
    ways += [guided, {"response_format": {"type": "json_object"}}, {"max_tokens": 1}]
    for more in ways:
        body = {"max_tokens": 8, **ASKS[chat], "stream": True, "stream_options": {"include_usage": True}, **more}
        status, headers, content = server.request("POST", path, body)
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        *lines, end = content.decode().strip().split("\n\n")
        assert end == "data: [DONE]"
        for line in lines:
            jsonschema_rs.validate(chunk, json.loads(line.removeprefix("data: ")))


def test_a_key_is_described_where_one_is_asked_for(llama: Path) -> None:
    with assistant(llama, key="secret") as server:
        described = server.request("GET", "/openapi.json")[2]
        assert described["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
        status, headers, _ = server.request("GET", "/v1/models")
        assert (status, headers["www-authenticate"]) == (401, "Bearer")


def test_a_method_that_is_not_allowed_is_told_which_are(server: Assistant) -> None:
    status, headers, _ = server.request("GET", "/v1/chat/completions")
    assert (status, headers["allow"]) == (405, "POST")


def test_a_text_completion_refuses_a_strategy_that_does_not_exist() -> None:
    with pytest.raises(ApiError, match="strategy: expected one of auto"):
        asked(False, strategy="nonsense")
