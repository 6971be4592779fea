"""Strategy `exact` and its neighbours, driven by scripted models: every path, without a model's moods."""

import re

import pytest
from scripted import PLAN, QUESTION, solve, whole

from sgft_edge.reasoning import exact, plain
from sgft_edge.reasoning.backend import Completion
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.solution import Step


def test_values_are_computed_and_written_back() -> None:
    draft, _, answerer, events = solve(exact.exact, [whole(PLAN)], ["5 * 120", "600 - 75"])
    assert (draft.solved_by, draft.answer, draft.text) == ("exact", "525", "The answer is 525.")
    assert draft.steps == (
        Step("Find the money from all bikes.", "5 * 120", "600"),
        Step("Find what is left.", "600 - 75", "525"),
    )
    assert answerer.text == (
        "1. Find the money from all bikes.\n Expression: 5 * 120 = 600\n"
        "2. Find what is left.\n Expression: 600 - 75 = 525"
    )
    assert [event.kind for event in events] == ["step", "expression", "value"] * 2 + ["answer"]
    assert draft.notes == []


def test_rounded_values_stay_exact_for_later_steps() -> None:
    debt = Question(f"{QUESTION.text} Say the debt as a negative number.")
    draft, *_ = solve(exact.exact, [whole(PLAN + "\n3. Say it.")], ["10 / 3", "3.3333 * 3", "0 - 3.3333 * 6"], debt)
    assert [step.value for step in draft.steps] == ["3.3333", "10", "-20"]
    assert draft.steps[1].expression == "3.3333 * 3"


def test_a_step_may_have_nothing_to_compute() -> None:
    draft, *_ = solve(exact.exact, [whole(PLAN)], ["5 * 120", ""])
    assert draft.answer == "600"
    assert draft.steps[1] == Step("Find what is left.")


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        (["1 / 0"], "division by zero|divide"),
        ([Completion("1 + 1 + 1", 48, "length")], "does not end"),
        (["", ""], "something to compute"),
    ],
)
def test_a_failure_is_tried_again_with_another_guidance(failing: list[str | Completion], reason: str) -> None:
    draft, guide, _, events = solve(
        exact.exact, [whole(PLAN), whole("1. Multiply.\n2. Subtract.")], [*failing, "5 * 120", "600 - 75"]
    )
    assert draft.answer == "525"
    assert draft.guidance == "1. Multiply.\n2. Subtract."
    assert len(draft.notes) == 1
    assert re.search(reason, draft.notes[0])
    first, second = (asked["sampling"] for asked in guide.asked)
    assert first.temperature == 0
    assert second.temperature > 0
    assert second.seed != first.seed
    assert [event.text for event in events if event.kind == "note"] == draft.notes


def test_two_failures_fall_back_to_a_free_answer() -> None:
    draft, _, answerer, _ = solve(
        exact.exact, [whole("no steps here"), whole(PLAN)], ["1 / 0", whole("600 - 75 = 525. The answer is 525.")]
    )
    assert (draft.solved_by, draft.answer, len(draft.notes)) == ("sg", "525", 3)
    assert draft.guidance == PLAN
    assert ("assistant", PLAN) in answerer.prompts[-1].messages


def test_a_given_guidance_is_tried_once() -> None:
    given = Question(QUESTION.text, guidance=PLAN)
    draft, guide, *_ = solve(exact.exact, [], ["1 / 0", whole("The answer is 525.")], given)
    assert (draft.solved_by, draft.answer, len(draft.notes)) == ("sg", "525", 2)
    assert not guide.asked


@pytest.mark.parametrize("one", [False, True], ids=["two models", "one model"])
def test_stepwise_the_guide_sees_the_values(one: bool) -> None:
    guide, answerer = [" Find the money.", "2.", " Find what is left.", "The"], ["5 * 120", "600 - 75"]
    if one:
        guide, answerer = [" Find the money.", "5 * 120", "2.", " Find what is left.", "600 - 75", "The"], []
    draft, g, a, _ = solve(exact.exact, guide, answerer, one=one, plan="stepwise")
    assert draft.answer == "525"
    assert draft.guidance == "1. Find the money.\n2. Find what is left."
    expected = (
        "1. Find the money.\n Expression: 5 * 120 = 600\n"
        "2. Find what is left.\n Expression: 600 - 75 = 525\nThe answer is"
    )
    assert g.text == expected
    assert a.text == expected


def test_stepwise_ends_after_six_steps() -> None:
    guide = [text for n in range(1, 7) for text in (f" Step {n}.", f"{n + 1}.")][:-1]
    draft, *_ = solve(exact.exact, guide, ["1 + 1"] * 6, plan="stepwise")
    assert len(draft.steps) == 6


LEFT = Question("A pet store has 13 siamese and 5 house cats and sells 15 of them. How many are left?")


def test_what_falls_below_zero_where_nothing_can_is_planned_again() -> None:
    once, twice = [whole("1. Take the sold from the siamese cats.")], [whole("1. Add them.\n2. Find what is left.")]
    draft, guide, *_ = solve(exact.exact, [*once, *twice], ["13 - 15", "13 + 5", "18 - 15"], LEFT)
    assert (draft.solved_by, draft.answer, draft.notes) == (
        "exact",
        "3",
        ["a value is below zero, where none can be: planning again"],
    )
    assert guide.asked[1]["sampling"].temperature > 0
    draft, *_ = solve(exact.exact, [*once, *once], ["13 - 15", "5 - 15"], LEFT)
    assert (draft.answer, len(draft.notes)) == ("-2", 1)  # the first stands where the second is no better
    draft, *_ = solve(exact.exact, [*once, whole("nothing")], ["13 - 15"], LEFT)
    assert (draft.solved_by, draft.answer, len(draft.notes)) == ("exact", "-2", 2)


def test_what_may_fall_below_zero_is_planned_once() -> None:
    cold = Question("It is 6 degrees and gets 11 degrees colder. How cold is it then?")
    draft, *_ = solve(exact.exact, [whole("1. Take the fall from the start.")], ["6 - 11"], cold)
    assert (draft.answer, draft.notes) == ("-5", [])
    given = Question(LEFT.text, guidance="1. Take the sold from the siamese cats.")
    draft, *_ = solve(exact.exact, [], ["13 - 15"], given)
    assert (draft.answer, draft.notes) == ("-2", [])


def test_grounded_operands_are_those_of_the_problem() -> None:
    question = Question("A coat costs 80 dollars, 25% less in winter. Two coats?")
    _, _, answerer, _ = solve(
        exact.exact,
        [whole("1. Find the rest for 3 coats.\n2. Double it.")],
        ["80 / 3", "1"],
        question,
        operands="grounded",
    )
    first, second = (asked["grammar"] for asked in answerer.asked)
    for number in ("80", "25", "0.25", "3", "2", "60"):
        assert f'"{number}"' in first
    assert '"26.6667"' not in first
    assert '"26.6667"' in second
    assert "[0-9]" not in first


def test_a_value_speaks_for_a_choice_or_a_letter_is_forced() -> None:
    question = Question(QUESTION.text, {"A": "525 dollars", "B": "600 dollars"})
    draft, *_ = solve(exact.exact, [whole(PLAN)], ["5 * 120", "600 - 75"], question)
    assert draft.answer == "A"
    draft, _, answerer, _ = solve(exact.exact, [whole(PLAN)], ["5 * 120", "600 - 74", "B"], question)
    assert draft.answer == "B"
    assert '"A)" | "B)"' in answerer.asked[-1]["grammar"]


def test_program_is_tried_twice_and_then_thinks() -> None:
    draft, *_ = solve(plain.program, [], ["    return 5 * 120 - 75\n"])
    assert (draft.solved_by, draft.answer) == ("program", "525")
    draft, _, answerer, _ = solve(plain.program, [], ["while True: pass", "    return 1\n"])
    assert (draft.solved_by, draft.answer, len(draft.notes)) == ("program", "1", 1)
    assert answerer.asked[1]["sampling"].temperature > 0
    draft, *_ = solve(plain.program, [], ["import os", "exit()", whole("So the answer is 525.")])
    assert (draft.solved_by, draft.answer, len(draft.notes)) == ("cot", "525", 3)


def test_free_answers() -> None:
    draft, *_ = solve(plain.cot, [], [Completion("600 - 75 is 525", 512, "length")])
    assert (draft.answer, draft.truncated) == (None, True)
    draft, *_ = solve(plain.cot, [], [Completion("The answer is 525. That is 600", 512, "length")])
    assert (draft.answer, draft.truncated) == ("525", True)
    draft, *_ = solve(plain.direct, [], [" 525."])
    assert (draft.text, draft.answer) == ("The answer is 525.", "525")
    draft, *_ = solve(plain.sg, [whole(PLAN)], [whole("It is 525.")])
    assert (draft.guidance, draft.answer) == (PLAN, "525")
    draft, *_ = solve(plain.cot, [], [whole("Light of 400 nm scatters more.")], Question("Why is the sky blue?"))
    assert draft.answer is None
    draft, *_ = solve(plain.cot, [], [whole("Hm."), "B"], Question("Is it?", {"A": "yes", "B": "no"}))
    assert draft.answer == "B"


def test_a_guidance_that_is_cut_off_loses_its_last_line() -> None:
    draft, *_ = solve(plain.sg, [Completion(PLAN + "\n3. And th", 256, "length")], [whole("525")])
    assert draft.guidance == PLAN
