"""Data files as token ids of a tiny model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from convert.samples import TEXT_CHUNK, Sample, read_samples, samples_for
from sgft_edge.errors import InputError
from sgft_edge.llama.model import Model
from sgft_edge.llama.tokens import prompt_tokens, template_of
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.question import Question

ROWS: list[dict[str, Any]] = [
    {"question": "A shop sells 5 bikes. How many are left of 9?", "guidance": "1. Subtract them.", "answer": "4"},
    {"question": "Is a whale a fish?", "choices": {"A": "yes", "B": "no"}, "guidance": "1. Say what a fish is."},
    {"question": "What is 2 + 2?", "guidance": "1. Add them."},
]


@pytest.fixture(scope="module")
def model(llama: Path) -> Iterator[Model]:
    model = Model(llama)
    yield model
    model.close()


def written(path: Path, *rows: dict[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def text(model: Model, tokens: list[int]) -> str:
    return b"".join(model.piece(token) for token in tokens).decode()


def test_a_problem_is_the_runtimes_prompt_and_then_its_guidance(model: Model, tmp_path: Path) -> None:
    samples = read_samples(written(tmp_path / "data.jsonl", *ROWS), model)
    assert len(samples) == len(ROWS)
    for sample, row in zip(samples, ROWS, strict=True):
        question = Question(row["question"], row.get("choices", {}))
        prompt, _ = prompt_tokens(model, template_of(model), prompts.guide(question))
        assert sample.tokens[: sample.start] == prompt
        assert text(model, sample.tokens[sample.start :]) == row["guidance"]


def test_the_first_problems_are_taken(model: Model, llama: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "data.jsonl", *ROWS, "what stands behind the limit is not looked at")
    assert read_samples(path, model, 2) == samples_for(llama, path, 2) == read_samples(path, model, 3)[:2]


def test_a_missing_guidance_is_named_by_its_line(model: Model, tmp_path: Path) -> None:
    path = written(tmp_path / "data.jsonl", ROWS[0], "", {"question": "What is 2 + 2?"})
    with pytest.raises(InputError) as caught:
        read_samples(path, model)
    assert str(caught.value) == f"{path}: line 3: expected a guidance, found none"


@pytest.mark.parametrize("guidance", ["", "  \n"])
def test_a_blank_guidance_is_none(model: Model, tmp_path: Path, guidance: str) -> None:
    """There would be nothing to measure."""
    path = written(tmp_path / "data.jsonl", {**ROWS[0], "guidance": guidance})
    with pytest.raises(InputError, match="line 1: expected a guidance, found none"):
        read_samples(path, model)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "expected a JSON object on one line, found"),
        ("[]", "expected a JSON object with a text 'question'"),
        ('{"guidance": "1. Add them."}', "expected a JSON object with a text 'question'"),
        ('{"question": "Why?", "guidance": 3}', "guidance: expected a text, found 3"),
    ],
)
def test_a_bad_row_is_named_by_its_file_and_line(model: Model, tmp_path: Path, row: str, reason: str) -> None:
    path = written(tmp_path / "data.jsonl", ROWS[0], row)
    with pytest.raises(InputError) as caught:
        read_samples(path, model)
    assert str(caught.value).startswith(f"{path}: line 2: {reason}")
    assert "\n" not in str(caught.value)


def test_problems_that_are_not_utf8(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps(ROWS[0]).encode() + b'\n{"question": "Stra\xdfe?", "guidance": "1. Go."}\n')
    with pytest.raises(InputError, match="line 2: expected UTF-8, found byte 0xdf"):
        read_samples(path, model)


def test_a_text_is_cut_into_full_chunks(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text(tiny.CORPUS * 9, encoding="utf-8")
    tokens = model.tokenize_document(tiny.CORPUS * 9)
    assert len(tokens) > 2 * TEXT_CHUNK
    assert len(tokens) % TEXT_CHUNK
    samples = read_samples(path, model)
    assert {len(sample.tokens) for sample in samples} == {TEXT_CHUNK}
    assert {sample.start for sample in samples} == {1}
    joined = [token for sample in samples for token in sample.tokens]
    assert joined == tokens[: len(joined)]
    assert len(tokens) - len(joined) < TEXT_CHUNK
    assert read_samples(path, model, 2) == samples[:2]


def test_a_short_text_is_one_chunk(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("Find the number of pens.", encoding="utf-8")
    assert read_samples(path, model) == [Sample(model.tokenize_document("Find the number of pens."), 1)]


def test_a_text_that_is_not_utf8(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes("Straße".encode("latin-1"))
    with pytest.raises(InputError, match=r"data.txt: expected a text in UTF-8: .*0xdf") as caught:
        read_samples(path, model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "content"), [("data.jsonl", ""), ("data.jsonl", "\n\n"), ("data.txt", "")])
def test_a_file_with_nothing_in_it(model: Model, tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_samples(path, model)
    assert str(caught.value) == f"{path}: expected problems with a guidance, or a text, found nothing"


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.txt"])
def test_a_file_that_is_not_there(model: Model, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}.*No such file") as caught:
        read_samples(tmp_path / name, model)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_data(model: Model, tmp_path: Path) -> None:
    for name in ("data.jsonl", "data.txt"):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match="Is a directory"):
            read_samples(tmp_path / name, model)
