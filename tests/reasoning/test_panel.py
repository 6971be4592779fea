"""Several ways to one question, until two agree."""

from pathlib import Path

import pytest
from scripted import PLAN, QUESTION, Script, solve, whole
from solvers import BIKES, open_tiny

from sgft_edge.reasoning.backend import Completion
from sgft_edge.reasoning.panel import panel
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Settings
from sgft_edge.reasoning.solution import Event
from sgft_edge.reasoning.task import Draft

EXECUTED = ["5 * 120", "600 - 75"]
RIGHT, WRONG, NONE = "    return 5 * 120 - 75\n", "    return 120 - 75\n", "    return unknown\n"
THOUGHT = whole("It is 525. The answer is 525.")


def ask(*answerer: str | Completion, question: Question = QUESTION) -> tuple[Draft, Script, Script, list[Event]]:
    return solve(panel, [whole(PLAN)], list(answerer), question)


def test_two_that_agree_end_it() -> None:
    draft, _, _, events = ask(*EXECUTED, whole(RIGHT))
    assert (draft.solved_by, draft.answer, draft.text) == ("panel", "525", "The answer is 525.")
    assert draft.guidance == PLAN
    assert [step.value for step in draft.steps] == ["600", "525"]
    assert draft.notes == ["found: exact 525, program 525"]
    assert [event.text for event in events if event.kind == "answer"] == ["The answer is 525."]


def test_the_third_decides() -> None:
    draft, *_ = ask(*EXECUTED, whole(WRONG), THOUGHT)
    assert (draft.solved_by, draft.answer) == ("panel", "525")
    assert draft.guidance == PLAN  # what the first of the two has found stands
    assert draft.notes == ["found: exact 525, program 45, calc 525"]
    draft, *_ = ask(*EXECUTED, whole(WRONG), whole("The answer is 45."))
    assert (draft.solved_by, draft.answer, draft.guidance) == ("panel", "45", "")


def test_they_agree_on_a_letter() -> None:
    draft, *_ = ask(*EXECUTED, whole(RIGHT), question=Question(QUESTION.text, {"A": "45", "B": "525"}))
    assert (draft.solved_by, draft.answer) == ("panel", "B")
    assert draft.notes == ["found: exact B, program B"]


def test_where_no_two_agree_the_first_stands() -> None:
    draft, _, _, events = ask(*EXECUTED, whole(WRONG), whole("The answer is 7."))
    assert (draft.solved_by, draft.answer, draft.guidance) == ("exact", "525", PLAN)
    assert draft.notes == ["found: exact 525, program 45, calc 7"]
    assert [event.text for event in events if event.kind == "answer"] == ["The answer is 525."]


def test_a_way_that_gives_no_answer_has_no_say() -> None:
    draft, *_ = ask(*EXECUTED, whole(WRONG), whole("Who knows?"))
    assert (draft.solved_by, draft.answer) == ("exact", "525")


def test_a_way_that_fell_back_has_no_say() -> None:
    """Two programs without a value lead to a chain of thought, which is not to agree with itself."""
    draft, *_ = ask(*EXECUTED, whole(NONE), whole(NONE), whole("The answer is 525."), whole("The answer is 8."))
    assert (draft.solved_by, draft.answer) == ("exact", "525")
    assert draft.notes[-1] == "found: exact 525, calc 8"


@pytest.mark.parametrize(
    "strategy_settings", [Settings("panel", max_tokens=8), Settings("panel", "stepwise", max_tokens=8)]
)
def test_it_runs_in_a_solver(llama: Path, strategy_settings: Settings) -> None:
    with open_tiny(llama, parallel=2, settings=strategy_settings) as solver:
        *events, last = solver.stream(BIKES)
        assert last.solution is not None
        assert last.solution.strategy == "panel"
        assert last.solution.notes[-1].startswith("found: ")
        assert "".join(event.text for event in events if event.kind == "answer") == last.solution.text
        many = list(solver.solve_many([BIKES] * 3))
        assert len(many) == 3
