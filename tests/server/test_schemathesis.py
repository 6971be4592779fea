"""The server against its own description: random requests in the described form and against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from live import Assistant, assistant
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sgft_edge.server.work import Limits

pytestmark = pytest.mark.slow

EXAMPLES = 100  # for each operation and mode
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
OPERATIONS = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/health"),
    ("GET", "/openapi.json"),
    ("GET", "/metrics"),
    ("GET", "/"),
    ("GET", "/web/{path}"),
]


KNOWN = {"/v1/models/{name}": {"name": "tiny"}, "/web/{path}": {"path": "app.js"}}  # what random names do not hit


@pytest.fixture(scope="module")
def server(llama: Path) -> Iterator[Assistant]:
    with assistant(llama, Limits(slots=3, max_tokens=8)) as server:
        yield server
        assert server.under_way() == 0
        assert server.all_free()


@pytest.fixture(scope="module")
def described(server: Assistant) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_every_operation_is_tried(described: Any) -> None:
    paths = described.raw_schema["paths"]
    assert [(method.upper(), path) for path, methods in paths.items() for method in methods] == OPERATIONS


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
    + [(*operation, GenerationMode.NEGATIVE) for operation in OPERATIONS if operation[0] == "POST"],
)
def test_replies_are_as_described(server: Assistant, described: Any, method: str, path: str, mode: Any) -> None:
    operation = described[path][method]
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def holds(case: Any, known: bool) -> None:
        if known and path in KNOWN:
            case.path_parameters = KNOWN[path]
        if known and mode is GenerationMode.POSITIVE and path == "/v1/chat/completions":
            case.body["messages"].append({"role": "user", "content": "How many are 3 and 4 in all?"})
        response = case.call(base_url=server.url)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    holds()
    print(f"{mode.value} {method} {path}: {dict(statuses)}")
