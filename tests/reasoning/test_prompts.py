"""The prompts: shared beginnings, and a digest that tells versions apart."""

from pathlib import Path

import pytest
from tiny import tiny_model

from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.question import Question
from sgft_edge.solving.cast import open_cast
from sgft_edge.solving.wanted import Wanted

QUESTION = Question("A shop sells 5 bikes for 120 dollars each. How much is that?")


def test_guide_and_answerer_read_the_same_tokens_up_to_the_end_of_the_question(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny.gguf")
    cast = open_cast(Wanted(guide=path, adapter="none", plan="first", context=1024, threads=1, device="cpu"))
    try:
        guide, fixed = cast.guide.tokens(prompts.guide(QUESTION))
        answerer, same_fixed = cast.answerer.tokens(prompts.execute(QUESTION))
        shared = next(i for i, (a, b) in enumerate(zip(guide, answerer, strict=False)) if a != b)
        model = cast.guide.engine.model
        text = b"".join(model.piece(token) for token in guide[:shared]).decode()
    finally:
        cast.close()
    assert text.endswith(QUESTION.text)
    assert fixed == same_fixed
    assert 0 < fixed < shared


def test_the_worked_examples_are_right() -> None:
    """They show one step and two, a number that is not needed, and a question that asks for what was before."""
    from sgft_edge.text.arithmetic import evaluate, format_value
    from sgft_edge.text.guidance import parse, violations
    from sgft_edge.text.numerals import numbers_in

    examples = [text.splitlines() for text in prompts.SYSTEM.split("\n\n")[1:]]
    steps = []
    for problem, *lines, answer in examples:
        words, computed = lines[::2], [line.removeprefix(" Expression: ").split(" = ") for line in lines[1::2]]
        assert violations(parse("\n".join(words)), problem) == ()
        for expression, value in computed:
            assert format_value(evaluate(expression)) == value
        assert answer == f"{prompts.ANSWER} {computed[-1][1]}."
        used = [number for expression, _ in computed for number in numbers_in(expression)]
        steps.append((len(words), len(set(numbers_in(problem)) - set(used))))
    assert {count for count, _ in steps} == {1, 2}
    assert any(unused for _, unused in steps)


def test_the_digest_changes_with_any_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {prompts.digest()}
    for name in ("SYSTEM", "PLAIN_SYSTEM", "PLAN", "FOLLOW", "THINK", "DIRECT", "PROGRAM", "EXPRESSION", "NOTHING"):
        with monkeypatch.context() as patch:
            patch.setattr(prompts, name, getattr(prompts, name) + " now")
            seen.add(prompts.digest())
    assert len(seen) == 10
    assert prompts.digest() in seen


def test_a_guides_digest_changes_with_its_own_prompts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prompts.guide_digest()
    for name, matters in (("THINK", False), ("PROGRAM", False), ("PLAN", True), ("SYSTEM", True), ("EXPRESSION", True)):
        with monkeypatch.context() as patch:
            patch.setattr(prompts, name, getattr(prompts, name) + " now")
            assert (prompts.guide_digest() != before) == matters
