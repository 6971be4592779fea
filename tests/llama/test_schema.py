"""JSON schemas: what they let through, what they cost at most, and that no text is written past them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import begin, run

from sgft_edge.errors import GrammarError, InputError
from sgft_edge.llama.engine import Engine
from sgft_edge.llama.matching import Matcher
from sgft_edge.llama.schema_trial import try_out
from sgft_edge.reasoning.schema import ANY_OBJECT, JsonSchema
from sgft_edge.reasoning.settings import Sampling

DATE = {"type": "string", "pattern": r"^\d{4}-\d{2}$"}


@pytest.fixture(scope="module")
def engine(llama: Path) -> Iterator[Engine]:
    engine = Engine(llama, slots=2, window=512)
    yield engine
    engine.close()


def texts(*values: str) -> dict[str, Any]:
    return {"type": "object", "properties": {value: {"type": "string"} for value in values}, "required": list(values)}


def fits(engine: Engine, schema: dict[str, Any], text: str) -> bool:
    """Whether a text can be written, token by token, and then end."""
    matcher = engine.grammar(JsonSchema.of(schema))
    for token in engine.model.tokenize(text):
        if not matcher.allowed([token])[0]:
            return False
        matcher.accept(token)
    return bool(matcher.allowed([engine.model.eos])[0])


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"type": "integer", "minimum": 3, "maximum": 120}, "17", "121"),
        (DATE, '"2024-05"', '"2024-5"'),
        ({"type": "string", "pattern": "^a}$"}, '"a}"', '"a"'),
        ({"type": "string", "maxLength": 65536}, '"abc"', "abc"),
        ({"type": "array", "items": {"type": "boolean"}, "maxItems": 60000}, "[true, false]", "[1]"),
        ({"enum": ["yes", 3, None]}, "null", '"no"'),
        ({"const": {"a": [1]}}, '{"a":[1]}', '{"a":[2]}'),
        ({"anyOf": [{"type": "null"}, {"type": "number"}]}, "-0.5", "true"),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}}, "[[],[[]]]", "[1]"),
        ({"type": "string", "format": "date"}, '"2024-02-29"', '"2024-13-01"'),
        (texts("a", "é"), '{"a": "x",\n  "é": "ü"}', '{"a": "x"}'),
        ({"type": "object", "title": "T", "description": "d", "default": {}}, "{}", "[]"),
        ({"type": "object"}, '{"a": 1}', '{"a":   1}'),
        ({"type": "object", "x-guidance": {"key_separator": "="}}, '{"a": 1}', '{"a"=1}'),
    ],
)
def test_a_schema_holds_a_text(engine: Engine, schema: dict[str, Any], right: str, wrong: str) -> None:
    assert fits(engine, schema, right)
    assert not fits(engine, schema, wrong)


def test_what_the_whole_mask_holds_is_allowed_alone(engine: Engine) -> None:
    schema, ids = JsonSchema.of({**texts("name"), "additionalProperties": DATE}), np.arange(engine.model.n_vocab)
    rng = np.random.default_rng(1)
    matcher = engine.grammar(schema)
    assert isinstance(matcher, Matcher)
    for _ in range(40):
        mask = matcher.allowed(ids)
        alone = {token for token in ids if matcher.allowed([token])[0]}
        assert mask.any()
        assert alone.issuperset(ids[mask])  # where a text is forced, the mask holds its longest token alone
        controls = [token for token in ids if engine.model.is_control(int(token))]
        assert not any(mask[token] for token in controls if not engine.model.ends_generation(int(token)))
        token = int(rng.choice(np.flatnonzero(mask)))
        if engine.model.ends_generation(token):
            break
        matcher.accept(token)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_what_is_decoded_is_json(engine: Engine, temperature: float) -> None:
    many = {"type": "array", "items": DATE, "minItems": 2, "maxItems": 3}
    schema = JsonSchema.of({"type": "object", "properties": {"days": many}, "required": ["days"]} | CLOSED)
    sampling = Sampling(temperature, seed=3)
    texts = [begin(engine, "Days:").complete(200, grammar=schema, sampling=sampling) for _ in range(2)]
    for done in run(*texts):
        assert done.finish == "end"
        assert 2 <= len(json.loads(done.text)["days"]) <= 3
    for request in texts:
        request.sequence.close()


CLOSED = {"additionalProperties": False}


def test_a_token_that_does_not_fit_is_an_error(engine: Engine) -> None:
    matcher = engine.grammar(ANY_OBJECT)
    with pytest.raises(GrammarError):
        matcher.accept(engine.model.tokenize("]")[0])


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"pattern": "^a{300000000}$"}, "repeat less"),
        ({"pattern": "((a{100}){100}){100}"}, "repeat less"),
        ({"pattern": "(" * 60 + ")" * 60}, "repeat less"),
        ({"pattern": "a" * 1001}, "at most 1000 characters"),
        ({"patternProperties": {"a{9999}": {}}}, "repeat less"),
        ({"items": [{"anyOf": [{"pattern": "[a{1}]{5000}"}]}]}, "repeat less"),
        (nested(70), "flatten it"),
        (nested(100_000), "flatten it"),
        ({"enum": ["x" * 70_000]}, "at most 65536 characters"),
        ({"enum": ["\ud800"]}, "expected JSON"),
        ({"minimum": float("nan")}, "expected JSON"),
    ],
)
def test_the_bounds(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        JsonSchema.of(schema)


@pytest.mark.parametrize(
    "pattern",
    [r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$", r"^\+?[1-9]\d{1,14}$", "^.{0,500}$", r"^\p{Lu}[\w ]{2,30}$", "a{"],
)
def test_patterns_that_people_use_keep_the_bounds(pattern: str) -> None:
    assert json.loads(JsonSchema.of({"pattern": pattern}).text) == {"pattern": pattern}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "odd"},
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "(?=a)b"},
        {"type": "string", "format": "odd"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "#"},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "integer", "multipleOf": 999983},
    ],
)
def test_what_cannot_be_held_is_found_in_another_process(schema: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="schema: expected one that"):
        try_out(JsonSchema.of(schema))


def test_what_can_be_held_is_tried_once() -> None:
    try_out.cache_clear()
    for _ in range(2):
        try_out(JsonSchema.of(texts("a")))
    assert try_out.cache_info().hits == 1
