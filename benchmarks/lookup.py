"""What guessing ahead by prompt lookup would save in answers that are at hand: calls with a guess, and without one.

usage: python -m benchmarks.lookup MODEL ROWS.jsonl... (as `sgft-edge evaluate --output` writes them, cot or sg)

Nothing is decoded: each answer is gone through token by token as the engine would, at no cost of guesses. Printed are,
for each number of tokens guessed at once, the calls without and with a guess in parts of all tokens, and the price of
a batch with guesses, in batches without, up to which they save time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from sgft_edge import Question
from sgft_edge.llama.lookup import Drafting, Lookup
from sgft_edge.llama.model import Model
from sgft_edge.llama.tokens import prompt_tokens, template_of
from sgft_edge.measuring.search import DRAFTS
from sgft_edge.reasoning import prompts
from sgft_edge.store.places import resolve


@click.command()
@click.argument("model")
@click.argument("rows", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--limit", default=60, show_default=True, help="Rows of each file.")
def main(model: str, rows: tuple[Path, ...], limit: int) -> None:
    """Print a line for each file and number of tokens."""
    native = Model(resolve(model), vocab_only=True)
    for path in rows:
        texts = list(_texts(native, path, limit))
        tokens = sum(len(answer) for _, answer in texts)
        for most in DRAFTS:
            alone, guessed, right = (sum(column) for column in zip(*(walk(*text, most) for text in texts), strict=True))
            shares = f"{alone / tokens:.3f} calls without a guess, {guessed / tokens:.3f} with"
            print(f"{path.name}, {most} guessed at once: of {tokens} tokens {shares}", end=", ")
            print(f"{right / guessed:.2f} right, which pays where the batch costs less than {1 + right / guessed:.2f}")
    native.close()


def walk(prompt: list[int], answer: list[int], most: int) -> tuple[int, int, int]:
    """Calls without a guess, calls with one, and tokens guessed right."""
    lookup = Lookup(Drafting(most, 1.0))
    lookup.read(prompt)
    alone = guessed = right = at = 0
    while at < len(answer):
        guess = lookup.guess(len(answer) - at - 1)
        fits = next((i for i, token in enumerate(guess) if token != answer[at + i]), len(guess))
        alone, guessed, right = alone + (not guess), guessed + bool(guess), right + fits
        lookup.read(answer[at : at + fits + 1])
        at += fits + 1
    return alone, guessed, right


def _texts(model: Model, path: Path, limit: int) -> Iterator[tuple[list[int], list[int]]]:
    template = template_of(model)
    for row in map(json.loads, islice(path.open(encoding="utf-8"), limit)):
        question = Question(row["question"], row["choices"])
        plan = "\n".join(f"{number}. {step}" for number, step in enumerate(row["guidance"], start=1))
        prompt = prompts.follow(question, plan) if plan else prompts.cot(question)
        yield prompt_tokens(model, template, prompt)[0], model.tokenize(row["text"])


if __name__ == "__main__":
    main()
