"""Strategy `calc`: equations in free text, computed."""

import re
from fractions import Fraction
from pathlib import Path

import pytest

from sgft_edge.reasoning.backend import Completion
from sgft_edge.reasoning.calc import value_before
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Settings
from sgft_edge.solver import Solver
from sgft_edge.text.arithmetic import format_value

QUESTIONS = (
    "A shop sells 48 bikes for 137 dollars each and pays 765 dollars for parts. What is left?",
    "Anna has 387 red and 256 blue beads and gives away 149. How many beads are left?",
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3 + 4 =", 7),
        ("so the total is 3 + 4 =", 7),
        ("Total = 5 + 6 =", 11),
        ("5 bikes × $120/bike =", 600),
        ("12 eggs / 4 eggs per carton =", 3),
        ("40% of 80 =", 32),
        (r"25\% \text{ of } 4 =", 1),
        ("80 GB * 0.40 =", 32),
        (r"\[ 20 \text{ candles} \times \$2.00/\text{candle} =", 40),
        (r"\frac{1}{2} \times 8 =", 4),
        (r"\frac{10 \text{ lbs}}{4} =", Fraction(5, 2)),
        (r"\(49.50 + 67.50 + 126.00 =", 243),
        ("(2+3) * 4 =", 20),
        ("10 x 5 =", 50),
        ("**3 + 4** =", 7),
        ("1,250 + 1 =", 1251),
        ("180 miles + 120 miles + 15 miles + 320 miles =", 635),
        ("1. Add them: 31 - 6 =", 25),
        ("She has 5. Then 9 ÷ 3 =", 3),
        ("8 − 3 =", 5),
        ("2 * (3 + 4) * -1 =", -14),
    ],
)
def test_expressions_as_models_write_them(text: str, value: Fraction | int) -> None:
    assert value_before(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "=",
        "x =",
        "total =",
        "5 =",
        "$5 =",
        "2x + 3 =",
        "x - 3 =",
        "2D =",
        "- 2027 - 2027 =",
        "cost_of_red_ties + 5 =",
        "initial amount + 5 * 8 =",
        "4 * Ben's age =",
        "3 / 0 =",
        "3 + + =",
        "3 + 4\n =",
        "9" * 400 + " * " + "9" * 400 + " =",
        "((((3 + 4 =",
        r"\frac{1}{ =",
    ],
)
def test_what_has_no_value(text: str) -> None:
    assert value_before(text) is None


def test_every_equation_of_a_real_model_is_true(smollm2: Path) -> None:
    equations = 0
    with Solver.open(smollm2, adapter="none", threads=2, parallel=2) as solver:
        for solution in solver.solve_many(QUESTIONS, Settings("calc", max_tokens=160)):
            assert solution.solved_by == "calc"  # type: ignore[union-attr]
            text = solution.text  # type: ignore[union-attr]
            for match in re.finditer("=", text):
                value = value_before(text[: match.end()])
                said = re.match(r"[ $\\]*(-?[0-9][0-9,]*(?:\.[0-9]+)?)(?![0-9]*\s*[-+*/×÷\\])", text[match.end() :])
                if value is not None and said:
                    equations += 1
                    assert said[1].replace(",", "") == format_value(value), text
    assert equations


def test_what_is_shown_is_the_text_and_the_budget_holds(smollm2: Path) -> None:
    with Solver.open(smollm2, adapter="none", threads=2) as solver:
        for budget in (1, 7, 40):
            *events, last = solver.stream(QUESTIONS[0], Settings("calc", max_tokens=budget))
            assert last.solution is not None
            assert "".join(event.text for event in events).strip() == last.solution.text
            assert last.solution.usage["answerer"].decoded <= budget
            assert last.solution.truncated or last.solution.usage["answerer"].decoded < budget
        *events, last = solver.stream(QUESTIONS[0], Settings("calc", max_tokens=60, stop=("e", "a", "o", "i")))
        assert last.solution is not None
        assert not set("eaoi") & set("".join(event.text for event in events))
        assert not last.solution.truncated
        choices = {"A": "5811", "B": "12"}
        assert solver.solve(Question(QUESTIONS[0], choices), Settings("calc", max_tokens=4)).answer in choices


def test_a_completion_says_what_ended_it(smollm2: Path) -> None:
    from engines import begin, run

    from sgft_edge.llama.engine import Engine

    engine = Engine(smollm2, slots=1, window=256)
    try:
        assert run(begin(engine, "1 2 3 4 5").complete(20, (" 9", " 7"))) == [Completion(" 6", 4, "stop", " 7")]
    finally:
        engine.close()
