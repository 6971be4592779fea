"""What `test_exact.py` leaves: how strategies fail, what they hold apart, and what they ask of a turn."""

from fractions import Fraction

import pytest
from scripted import PLAN, QUESTION, Script, solve, whole

from sgft_edge.errors import ContextOverflow, EngineError
from sgft_edge.reasoning import exact, plain, prompts
from sgft_edge.reasoning.backend import Completion
from sgft_edge.reasoning.prompts import Prompt
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Sampling, Settings
from sgft_edge.reasoning.solution import Step
from sgft_edge.reasoning.task import Task, again
from sgft_edge.text import guidance
from sgft_edge.text.program import run

CHOICES = {"A": "525 dollars", "B": "600 dollars"}


def test_a_guidance_without_steps_is_written_again() -> None:
    draft, guide, _, _ = solve(exact.exact, [whole("Multiply, then subtract."), whole(PLAN)], ["5 * 120", "600 - 75"])
    assert (draft.solved_by, draft.answer, draft.guidance) == ("exact", "525", PLAN)
    assert len(draft.notes) == 1
    assert "numbered steps" in draft.notes[0]
    assert len(guide.prompts) == 2
    assert guide.asked[0]["grammar"] == guidance.GRAMMAR


def test_a_given_guidance_without_steps_falls_to_a_free_answer_at_once() -> None:
    given = Question(QUESTION.text, guidance="Multiply, then subtract.")
    draft, guide, answerer, _ = solve(exact.exact, [], [whole("525")], given)
    assert (draft.solved_by, draft.answer, draft.guidance) == ("sg", "525", "Multiply, then subtract.")
    assert not guide.prompts
    assert len(answerer.prompts) == 1


def test_a_given_guidance_is_executed_whole_under_plan_stepwise() -> None:
    given = Question(QUESTION.text, guidance=PLAN)
    draft, guide, *_ = solve(exact.exact, [], ["5 * 120", "600 - 75"], given, plan="stepwise")
    assert (draft.solved_by, draft.answer) == ("exact", "525")
    assert not guide.prompts


@pytest.mark.parametrize("bad", [Completion(" Find the money of all", 64, "length"), whole("  "), whole("")])
def test_a_step_that_is_no_line_of_words_is_tried_again(bad: Completion) -> None:
    draft, guide, *_ = solve(exact.exact, [bad, " Multiply.", "The"], ["5 * 120"], plan="stepwise")
    assert (draft.solved_by, draft.answer) == ("exact", "600")
    assert "step 1" in draft.notes[0]
    assert guide.asked[1]["sampling"].temperature > guide.asked[0]["sampling"].temperature


def test_stepwise_that_fails_twice_lets_the_guide_write_a_guidance() -> None:
    guide = [" Divide.", " Divide.", whole(PLAN)]
    draft, _, answerer, _ = solve(exact.exact, guide, ["1 / 0", "2 / 0", whole("525")], plan="stepwise")
    assert (draft.solved_by, draft.answer, draft.guidance) == ("sg", "525", PLAN)
    assert len(draft.notes) == 3
    assert ("assistant", PLAN) in answerer.prompts[-1].messages


def test_a_failed_step_leaves_nothing_in_the_next_try() -> None:
    draft, _, answerer, _ = solve(
        exact.exact, [whole(PLAN), whole(PLAN)], ["10 / 3", "3.3333 / 0", "5 * 120", "600 - 75"]
    )
    assert [step.value for step in draft.steps] == ["600", "525"]
    assert "3.3333" not in answerer.text
    assert len(answerer.prompts) == 2


@pytest.mark.parametrize(
    ("expressions", "values"),
    [
        (["1 / 3", "0.3333 * 3"], ["0.3333", "1"]),
        (["2 / 3", "1 - 0.6667", "0.3333 * 3"], ["0.6667", "0.3333", "1"]),
        (["1 / 3", "0.33333 * 3"], ["0.3333", "0.99999"]),  # not the value's text
        (["1 / 3", "10.3333 * 3"], ["0.3333", "30.9999"]),
        (["0 - 1 / 3", "-0.3333 * 3"], ["-0.3333", "-1"]),
        (["0 - 1 / 3", "2 - 0.3333 * 3"], ["-0.3333", "1"]),
        (["1 / 4", "0.25 * 3"], ["0.25", "0.75"]),
        (["1 / 7", "(0.1429 + 0.1429) * 7"], ["0.1429", "2"]),
        (["12345678 / 7", "1763668.2857 * 7"], ["1763668.2857", "12345678"]),
    ],
)
def test_later_steps_go_on_with_the_exact_value(expressions: list[str], values: list[str]) -> None:
    plan = "\n".join(f"{n}. Do it." for n in range(1, len(values) + 1))
    draft, *_ = solve(exact.exact, [whole(plan)], list(expressions), Question("What is 1/3 below zero?"))
    assert [step.value for step in draft.steps] == values
    assert draft.answer == values[-1]


def test_the_question_decides_about_choices_after_an_exact_value() -> None:
    question = Question(QUESTION.text, CHOICES)
    draft, _, answerer, _ = solve(exact.exact, [whole(PLAN)], ["5 * 120", "600 - 70", "A"], question)
    assert (draft.answer, draft.text) == ("A", "The answer is 530.")
    assert answerer.text == " 530.\nThe answer is (A"
    assert answerer.prompts[-1] == prompts.direct(question)


def test_a_program_speaks_for_a_choice() -> None:
    draft, *_ = solve(plain.program, [], ["    all = 5 * 120\n    return all - 75\n"], Question(QUESTION.text, CHOICES))
    assert (draft.solved_by, draft.answer) == ("program", "A")
    assert draft.steps == (Step("all", "5 * 120", "600"), Step("return", "600 - 75", "525"))


class Small(Script):
    """A turn whose window does not hold the prompt."""

    def read(self, prompt: Prompt, reserve: int) -> str:
        raise ContextOverflow(3000, 2048)


@pytest.mark.parametrize("strategy", [plain.direct, plain.cot, plain.plan, plain.program, plain.sg, exact.exact])
def test_an_overflow_is_not_hidden_by_a_fallback(strategy) -> None:  # type: ignore[no-untyped-def]
    steps = strategy(Task(QUESTION, Small([]), Small([]), Settings(), lambda event: None))  # type: ignore[arg-type]
    with pytest.raises(ContextOverflow):
        next(steps)


def test_an_engine_that_fails_is_not_hidden_by_a_fallback() -> None:
    steps = exact.exact(Task(QUESTION, Script([]), Script([]), Settings(), lambda event: None))  # type: ignore[arg-type]
    next(steps)
    with pytest.raises(EngineError):
        steps.throw(EngineError("llama_decode returned -3"))


def test_the_second_try_has_a_seed_of_its_own() -> None:
    for seed in (0, 7, 2**32 - 1):
        retry = again(Sampling(1.0, seed=seed))
        assert retry.temperature > 0
        assert retry.seed == (seed + 1) % 2**32


def test_a_guide_stops_before_the_answer() -> None:
    draft, *_ = solve(plain.sg, [Completion(PLAN + "\n", 30, "stop")], [whole("525")])
    assert draft.guidance == PLAN


def test_rational_results_are_not_rounded_on_the_way() -> None:
    source = "    third = 1 / 3\n    return third * 3\n"
    assert run(source).value == Fraction(1)
    draft, *_ = solve(plain.program, [], [source])
    assert (draft.answer, draft.steps[0].value) == ("1", "0.3333")
