"""Guesses from what stood in the text before, and what an engine makes of them."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
from engines import Probe, assert_read_right, begin, by_base, run, sampled_tokens
from texts import TEXT, ids

from sgft_edge.llama.engine import Engine
from sgft_edge.llama.lookup import Drafting, Lookup
from sgft_edge.llama.tuning import Tuning
from sgft_edge.measuring.compare import counting_prompt
from sgft_edge.reasoning.backend import Usage
from sgft_edge.reasoning.settings import Sampling

FREE = Drafting(4, 1.0)


def lookup(tokens: list[int], drafting: Drafting = FREE) -> Lookup:
    found = Lookup(drafting)
    found.read(tokens)
    return found


def test_what_followed_the_last_two_tokens() -> None:
    text = [1, 2, 3, 4, 5, 6, 1, 2]
    assert lookup(text).guess(9) == [3, 4, 5, 6]
    assert lookup(text).guess(2) == [3, 4]
    assert lookup([1, 2, 7, 1, 2, 8, 1, 2]).guess(1) == [8]  # the last place counts
    assert lookup([5, 5, 5]).guess(9) == [5]
    for strange in ([], [1], [1, 2], [2, 1, 3, 1]):
        assert lookup(strange).guess(9) == []
    assert lookup(text).guess(0) == []


def test_the_text_may_come_in_parts() -> None:
    parts = lookup([1, 2, 3])
    parts.read([4, 1])
    assert parts.guess(9) == []
    parts.read([2])
    assert parts.guess(9) == [3, 4, 1, 2]
    assert len(parts) == 6


@pytest.mark.parametrize("cost", [1.1, 1.6, 3.0])
def test_guesses_that_are_never_right_lose_little(cost: float) -> None:
    """A text of one token over and over, whose guesses are all rejected."""
    found = lookup([7] * 50, Drafting(4, cost))
    spent, length = 0.0, 400
    for _ in range(length):
        guess = found.guess(4)
        spent += found._drafting.cost_of(len(guess)) if guess else 1
        if guess:
            found.settle(len(guess), 0)
        found.read([7])
    assert spent <= length * 1.02 + 1


def test_guesses_that_are_right_go_on() -> None:
    found = lookup([7] * 50, Drafting(4, 1.5))
    for _ in range(100):
        guess = found.guess(4)
        assert guess
        found.settle(len(guess), len(guess))
        found.read([7] * (len(guess) + 1))


# --------------------------------------------------------------------------------------------------- in an engine


@pytest.fixture(params=["llama", "qwen2"])
def path(request: pytest.FixtureRequest, tiny_files: Path) -> Path:
    return tiny_files / f"{request.param}.gguf"


def engines(path: Path, tokens: int = 4, window: int = 512) -> tuple[Engine, Engine]:
    """One that decodes token by token, and one that guesses."""
    tuning = Tuning(1, 1, draft_tokens=tokens)
    return Engine(path, window=window, slots=2), Engine(path, window=window, slots=2, tuning=tuning)


def looping(engine: Engine) -> list[int]:
    """A prompt that repeats itself, as what a model of random weights writes after it may do or not."""
    return ids(engine, TEXT) * 4


@pytest.mark.parametrize("grammar", [None, 'root ::= ("a loaf of bread, " | "a roll, "){9}'])
@pytest.mark.parametrize("tokens", [1, 4, 16])
def test_a_guessed_text_is_the_text(path: Path, tokens: int, grammar: str | None) -> None:
    plain, guessing = engines(path, tokens)
    plain.close()
    probe, usage, sequence = Probe(guessing), Usage(), guessing.acquire()
    prompt = looping(guessing)
    sequence.begin(prompt, None, usage)
    done = run(sequence.complete(120, grammar=grammar))[0]
    written, found = sampled_tokens(sequence, prompt), probe.logits[sequence.slot]
    assert len(found) == done.tokens == usage.decoded
    assert done.text == b"".join(map(guessing.model.piece, written)).decode("utf-8", "replace")
    assert_read_right(path, by_base(prompt), found, written)
    if grammar is None:
        assert written == [int(row.argmax()) for row in found]
    else:
        assert re.fullmatch("(a loaf of bread, |a roll, ){9}", done.text)
        assert usage.calls < usage.decoded, "nothing was guessed right: this tests nothing"
        assert len(probe.rows) >= usage.prefilled + usage.decoded, "nothing was guessed wrong: this tests nothing"
    guessing.close()


def test_the_smollm2_counts_with_fewer_calls(smollm2: Path) -> None:
    prompt, context = counting_prompt(smollm2, 64, 512)
    texts, calls = [], []
    for tuning in (Tuning(2, 2), Tuning(2, 2, draft_tokens=4, draft_cost=1.2)):
        engine = Engine(smollm2, window=context, tuning=tuning)
        usage, sequence = Usage(), engine.acquire()
        sequence.begin(list(prompt), None, usage)
        texts.append(run(sequence.complete(48))[0].text)
        calls.append(usage.calls)
        engine.close()
    assert texts[0] == texts[1]
    assert calls[1] < 0.9 * calls[0]


def test_what_is_in_the_cache_afterwards_is_the_text(path: Path) -> None:
    """After guesses, right and wrong, forced text goes on as it does after token by token."""
    followed = []
    for engine in engines(path):
        sequence = begin(engine, looping(engine))
        probe = Probe(engine)
        for stop in (("e",), ("a", "o"), ()):
            run(sequence.complete(40, stop))
            sequence.append(" and then")
        probe.logits.clear()
        run(sequence.complete(1))
        followed.append(probe.logits[sequence.slot][0].copy())
        engine.close()
    np.testing.assert_allclose(followed[1], followed[0], rtol=0, atol=2e-2 * np.abs(followed[0]).max())


def test_the_window_and_the_limit_are_kept(path: Path) -> None:
    for limit in (1, 2, 3, 7, 30):
        for engine in engines(path, 16, window=256):
            prompt = looping(engine)[: engine.window - limit + 1]
            sequence = begin(engine, prompt)
            done = run(sequence.complete(limit))[0]
            assert (done.tokens, done.finish) == (limit, "length")
            assert len(sampled_tokens(sequence, prompt)) == limit
            engine.close()


def test_nothing_is_guessed_beside_others_or_at_a_temperature(path: Path) -> None:
    plain, guessing = engines(path)
    prompt = looping(guessing)
    usages = []
    for _ in range(2):
        sequence = guessing.acquire()
        usages.append(Usage())
        sequence.begin(prompt, None, usages[-1])
        guessing.submit(sequence.complete(30))
    while guessing.busy:
        guessing.step()
    assert [usage.calls for usage in usages] == [usages[0].decoded] * 2
    warm = Usage()
    sequence = plain.acquire()
    sequence.begin(prompt, None, warm)
    run(sequence.complete(30, sampling=Sampling(1.0)))
    assert warm.calls == warm.decoded
    plain.close()
    guessing.close()


def test_a_random_text_under_random_stops(llama: Path) -> None:
    rng = random.Random(0)
    plain, guessing = engines(llama, 3)
    plain.close()
    probe = Probe(guessing)
    for _ in range(20):
        prompt = [rng.randrange(20, 200) for _ in range(rng.randrange(1, 6))] * rng.randrange(2, 9)
        stop = tuple(rng.choice("aeiou ,.") * rng.randrange(1, 3) for _ in range(rng.randrange(3)))
        sequence = begin(guessing, prompt)
        probe.logits.clear()
        done = run(sequence.complete(40, stop))[0]
        found = probe.logits[sequence.slot]
        whole = b"".join(guessing.model.piece(int(row.argmax())) for row in found).decode("utf-8", "replace")
        assert done.text == whole[: min((at for text in stop if (at := whole.find(text)) >= 0), default=len(whole))]
        assert_read_right(llama, by_base(prompt), found)
        sequence.close()
    guessing.close()
