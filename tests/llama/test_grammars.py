"""Texts under a grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engines import (
    Probe,
    begin,
    run,
    sampled_tokens,
)
from gbnf_regex import as_regex
from program_grammar import PROGRAM_GRAMMAR
from texts import TEXT, ids, sampled

from sgft_edge.errors import (
    EvaluationError,
    GrammarError,
)
from sgft_edge.llama.engine import Engine
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.settings import Sampling
from sgft_edge.text import guidance, program
from sgft_edge.text.arithmetic import evaluate
from sgft_edge.text.gbnf import expression_grammar


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= root "a" | "a"',
        'root ::= x "a"\nx ::= root "b" | "c"',
        'root ::= "a"? root "b" | "c"',
        "root ::= root",
        'root ::= ("")* "a"',
        "root ::= nonesuch",
        'other ::= "a"',
        "(((",
        'root ::= "a',
        "root ::= [a",
        'root ::= "a"{99999999999999999999}',
        'root ::= ((("a"{1,100}){1,100}){1,100}){1,100}',
        "",
        "  ",
    ],
)
def test_a_grammar_that_cannot_be_used_is_refused(engine: Engine, grammar: str) -> None:
    sequence = begin(engine, TEXT)
    with pytest.raises(GrammarError, match="does not accept the grammar") as found:
        run(sequence.complete(5, grammar=grammar))
    assert "\n" not in str(found.value)
    assert not engine.busy
    assert run(sequence.complete(5))[0].finish == "length"


def test_a_grammar_that_allows_no_token_fails_its_own_text_only(engine: Engine) -> None:
    good, bad = begin(engine, TEXT), begin(engine, TEXT)
    requests = good.complete(8), bad.complete(8, grammar="root ::= [z-a]")
    for request in requests:
        engine.submit(request)
    ended = []
    while engine.busy:
        ended += engine.step()
    assert ended == [requests[1], requests[0]]
    assert isinstance(requests[1].error, GrammarError)
    assert requests[0].result is not None
    bad.append("!")
    assert run(bad.complete(3))[0].tokens == 3


@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_a_complete_grammar_leaves_only_the_end(engine: Engine, temperature: float) -> None:
    for grammar, texts in (
        ('root ::= "a"', {"a"}),
        ('root ::= ""', {""}),
        ('root ::= "ab"{1,3}', {"ab", "abab", "ababab"}),
        ('root ::= "a"{1,1000000}', None),
        ('root ::= ("a"*)* "b"', None),
        ("root ::= " + "(" * 200 + '"a"' + ")" * 200, {"a"}),
    ):
        sequence = begin(engine, TEXT)
        done = run(sequence.complete(40, grammar=grammar, sampling=Sampling(temperature)))[0]
        assert re.fullmatch("[ab]*", done.text)
        if texts is not None:
            assert (done.text in texts, done.finish) == (True, "end")
        sequence.close()


@pytest.mark.parametrize("seed", range(4))
def test_characters_of_many_bytes_under_a_grammar(engine: Engine, seed: int) -> None:
    wild = Sampling(10.0, seed=seed)
    # llama.cpp takes some sequences of bytes that are no characters (overlong ones): they are shown as U+FFFD.
    done = run(begin(engine, TEXT).complete(200, grammar='root ::= ([ä-ü] | [日-本] | "😀"){5,20}', sampling=wild))[0]
    assert done.finish == "end"
    assert re.fullmatch("[ä-ü日-本😀�]+", done.text)
    assert len(done.text) >= 5
    assert len(done.text.replace("�", "")) <= 20
    done = run(begin(engine, TEXT).complete(100, grammar="root ::= [^a-z]{5,20}", sampling=wild))[0]
    assert re.fullmatch("[^a-z]*", done.text)


@pytest.fixture
def wide(llama: Path) -> Iterator[Engine]:
    engine = Engine(llama, slots=6, window=1024, threads=2)
    yield engine
    engine.close()


def test_whatever_the_expression_grammar_lets_through_is_read(wide: Engine) -> None:
    grammar = expression_grammar(prompts.EQUALS)
    pattern = as_regex(grammar)
    done = sampled(wide, grammar, range(6), 300, (prompts.EQUALS,))
    assert any(completion.finish == "stop" for completion in done)
    for completion in done:
        if completion.finish == "stop":
            assert re.fullmatch(pattern, completion.text + prompts.EQUALS)
            try:
                evaluate(completion.text)
            except EvaluationError as e:
                assert re.search("division by zero|10\\*\\*60|2000 characters", str(e))  # noqa: PT017


def test_whatever_the_guidance_grammar_lets_through_is_parsed(wide: Engine) -> None:
    pattern = as_regex(guidance.GRAMMAR)
    for completion in sampled(wide, guidance.GRAMMAR, range(6), 700):
        assert "=" not in completion.text
        found = guidance.parse(completion.text)
        assert 1 <= len(found.steps) <= guidance.MAX_STEPS
        if completion.finish == "end":
            assert re.fullmatch(pattern, completion.text)
            assert len(found.steps) >= guidance.MIN_STEPS


def test_whatever_the_step_grammar_lets_through_is_one_line(wide: Engine) -> None:
    for completion in sampled(wide, guidance.STEP_GRAMMAR, range(6), 300, ("\n",)):
        assert completion.finish in ("stop", "length")
        assert re.fullmatch(r" [^ \n=0-9][^\n=]*", completion.text)


def test_whatever_the_program_grammar_lets_through_runs(wide: Engine) -> None:
    pattern = as_regex(PROGRAM_GRAMMAR)
    for completion in sampled(wide, PROGRAM_GRAMMAR, range(6), 900):
        text = completion.text
        if completion.finish == "end":
            assert re.fullmatch(pattern, text)
        else:  # whole lines up to the limit on tokens
            text = text.rpartition("\n")[0]
        try:
            program.run(text)
        except EvaluationError as e:
            values = "division by zero|10\\*\\*60|unknown name|whole exponent|characters|does not take|an assignment"
            assert re.search(values, str(e)), str(e)  # noqa: PT017


def test_greedy_under_a_grammar_takes_the_best_token_that_fits(engine: Engine, llama: Path) -> None:
    """The fast path (sample, then check) and a whole vocabulary under the grammar pick the same tokens."""
    probe = Probe(engine)
    sequence = begin(engine, TEXT)
    run(sequence.complete(12, grammar="root ::= [a-z ]+"))
    tokens = sampled_tokens(sequence, ids(engine, TEXT))
    fits = np.array([bool(re.fullmatch(rb"[a-z ]+", engine.model.piece(t))) for t in range(engine.model.n_vocab)])
    assert len(tokens) == 12
    for step, (token, logits) in enumerate(zip(tokens, probe.logits[sequence.slot], strict=True)):
        allowed = fits.copy()
        allowed[[t for t in range(len(fits)) if engine.model.ends_generation(t)]] = step > 0
        assert token == int(np.where(allowed, logits, -np.inf).argmax())
