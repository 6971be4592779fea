"""Texts of the kind that the model will see, as token ids: solution guidance problems in the runtime's own prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sgft_edge.errors import InputError
from sgft_edge.llama.model import Model
from sgft_edge.llama.tokens import prompt_tokens, template_of
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.problems import read_problems

WINDOW = 2048  # tokens of the longest sample
TEXT_CHUNK = 512  # tokens of one sample cut from a plain text, as in llama.cpp's tools


@dataclass(frozen=True)
class Sample:
    """Token ids; those from `start` on are what the model is to write."""

    tokens: list[int]
    start: int


def samples_for(gguf_file: Path, data: Path, limit: int) -> list[Sample]:
    """The first `limit` samples of a data file, by the tokenizer of a GGUF file."""
    model = Model(gguf_file, vocab_only=True)
    try:
        return read_samples(data, model, limit)
    finally:
        model.close()


def read_samples(path: Path, model: Model, limit: int | None = None) -> list[Sample]:
    """Samples by the tokenizer of a GGUF file: problems with guidance from JSONL, chunks from any other text.

    Raises `InputError` for a file that cannot be read, a bad row, or nothing to read.
    """
    samples = _from_problems(path, model, limit) if path.suffix == ".jsonl" else _from_text(path, model, limit)
    if not samples:
        raise InputError(f"{path}: expected problems with a guidance, or a text, found nothing")
    return samples


def _from_problems(path: Path, model: Model, limit: int | None) -> list[Sample]:
    template = template_of(model)
    samples: list[Sample] = []
    for problem in read_problems(path):
        if limit is not None and len(samples) == limit:
            break
        question = problem.question
        if question is None:
            raise InputError(f"{path}: line {problem.number}: {problem.error}")
        if not (question.guidance or "").strip():
            raise InputError(f"{path}: line {problem.number}: expected a guidance, found none")
        prompt, _ = prompt_tokens(model, template, prompts.guide(question))
        tokens = prompt + model.tokenize(question.guidance or "")
        if len(tokens) > WINDOW:
            found = f"{len(tokens)} tokens"
            raise InputError(f"{path}: line {problem.number}: expected at most {WINDOW} tokens, found {found}")
        samples.append(Sample(tokens, len(prompt)))
    return samples


def _from_text(path: Path, model: Model, limit: int | None) -> list[Sample]:
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: expected a text in UTF-8: {e}") from e
    tokens = model.tokenize_document(text)
    chunks = [tokens[i : i + TEXT_CHUNK] for i in range(0, len(tokens), TEXT_CHUNK)]
    full = [chunk for chunk in chunks if len(chunk) == TEXT_CHUNK] or chunks
    return [Sample(chunk, 1) for chunk in full[:limit] if len(chunk) > 1]
