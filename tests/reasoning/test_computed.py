"""Questions that are calculations are answered by the evaluator, wherever they are asked, and no model is touched."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction as F
from pathlib import Path
from typing import Any

import pytest

from sgft_edge import aio, solve
from sgft_edge.answers import extraction
from sgft_edge.reasoning.computed import computed
from sgft_edge.reasoning.conversation import question_of, strategy_for
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import STRATEGIES, Settings
from sgft_edge.reasoning.solution import Solution, Step
from sgft_edge.solver import Solver
from sgft_edge.terminal.session import Session

ASKED = "What is 17 * 23?"
BIKES = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?"
BUSY = Settings("cot", max_tokens=700)


@pytest.fixture(scope="module")
def solver(llama: Path) -> Iterator[Solver]:
    with Solver.open(llama, adapter="none", threads=1, context=1024) as solver:
        yield solver


def solution_of(text: str, **settings: Any) -> Solution:
    solution = computed(Question(text), Settings(**settings))
    assert solution is not None
    return solution


def test_a_solution_says_how_it_came_about() -> None:
    solution = computed(Question("What is 20% of 150?", id="7"), Settings())
    assert solution is not None
    assert (solution.id, solution.solved_by, solution.strategy) == ("7", "arithmetic", "arithmetic")
    assert solution.why == "the question is a calculation"
    assert solution.steps == (Step("20% of 150", "20 / 100 * 150", "30"),)
    assert (solution.text, solution.answer) == ("The answer is 30.", "30")
    assert (solution.decoded, solution.models, solution.digests) == (0, {}, {})
    assert json.loads(json.dumps(solution.to_dict()))["steps"][0]["value"] == "30"


@pytest.mark.parametrize(
    ("text", "answer", "said"),
    [
        ("17 * 23", "391", "The answer is 391."),
        ("5 - 7 =", "-2", "The answer is -2."),
        ("1.23456789 * 2", "2.46913578", "The answer is 2.46913578."),
        ("0.00001 * 0.00001", "0.0000000001", "The answer is 0.0000000001."),
        ("2^100", str(2**100), f"The answer is {2**100}."),
        ("10 / 3", "3.3333", "The answer is 3.3333, rounded from 10/3."),
        ("-200 / 3", "-66.6667", "The answer is -66.6667, rounded from -200/3."),
        ("1 / 70000", "0.00001429", "The answer is 0.00001429, rounded from 1/70000."),
        ("2 / 3 * 3", "2", "The answer is 2."),
    ],
)
def test_values_in_words(text: str, answer: str, said: str) -> None:
    solution = solution_of(text)
    assert (solution.answer, solution.text) == (answer, said)
    value = extraction.extract_number(solution.text)
    assert value is not None
    assert value == F(answer)


def test_what_has_no_value_is_said_in_a_sentence() -> None:
    for text, said in (("What is 5 / 0?", "Division by zero has no value."), ("10^99", "too large to be computed.")):
        solution = solution_of(text)
        assert solution.answer is None
        assert solution.text.endswith(said)
        assert solution.steps == ()
        assert solution.solved_by == "arithmetic"


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "auto"])
def test_a_strategy_that_was_asked_for_is_kept_to(strategy: str) -> None:
    assert computed(Question(ASKED), Settings(strategy)) is None


@pytest.mark.parametrize(
    "question",
    [
        Question(ASKED, choices={"A": "391", "B": "400"}),
        Question(ASKED, guidance="1. Multiply."),
        Question(BIKES),
    ],
    ids=["choices", "guidance", "problem"],
)
def test_what_is_to_be_answered_in_another_way(question: Question) -> None:
    assert computed(question, Settings()) is None
    assert computed(Question(ASKED), Settings(grammar='root ::= "x"')) is None


# ---------------------------------------------------------------------------------------------------- with a solver


def test_every_way_of_asking_a_solver(solver: Solver) -> None:
    expected = replace(solution_of(ASKED), seconds=0)
    events = list(solver.stream(ASKED))
    shown = [(event.kind, event.text) for event in events]
    assert shown[:3] == [("step", "17 * 23"), ("expression", "17 * 23"), ("value", "391")]
    assert shown[3:] == [("answer", "The answer is 391."), ("solution", "")]
    asked_later = [outcome for _, outcome in solver.solve_each([ASKED, ASKED])]
    found = [events[-1].solution, solver.solve(ASKED), *solver.solve_many([ASKED]), *asked_later]
    found.append(asyncio.run(aio.solve(solver, ASKED, Settings(votes=5))))
    assert [replace(solution, seconds=0) for solution in found] == [expected] * 6  # type: ignore[type-var]


def test_it_does_not_wait_for_a_model_at_work(solver: Solver) -> None:
    begun = threading.Event()
    ballot = solver.submit("Once upon a time", BUSY, lambda event: begun.set())
    try:
        assert begun.wait(30)
        assert solver.solve(ASKED).answer == "391"
        assert not any(job.future.done() for job in ballot._jobs)
    finally:
        ballot.cancel()


def test_problems_still_go_to_the_model(solver: Solver) -> None:
    assert solver.solve(BIKES, Settings(max_tokens=4)).strategy == "program"


# ----------------------------------------------------------------------------------------------- in a conversation


def test_a_message_in_a_conversation(solver: Solver) -> None:
    session = Session(solver, Settings(max_tokens=4))

    def ask(text: str) -> Solution:
        *_, last = session.ask(text)
        assert last.solution is not None
        return last.solution

    assert ask("Hello!").strategy == "chat"
    assert ask("17 * 23").answer == "391"
    assert session.turns[-1] == ("assistant", "1. 17 * 23\n 17 * 23 = 391\nThe answer is 391.")
    assert ask("and times 3?").solved_by != "arithmetic"
    assert ask(BIKES).strategy == "program"
    assert ask("Now calculate 12 plus 7").answer == "19"
    assert [event.kind for event in session.retry()][-1] == "solution"
    session.system = "You are a helpful assistant."  # what is worked out, planned or computed, does not read it
    assert ask("17 * 23").answer == "391"


@pytest.mark.parametrize("text", ["17 * 23", "half of 30", "Then 3 + 4", "And 3 * 4?", "what is that * 2"])
def test_a_calculation_refers_to_nothing(text: str) -> None:
    messages = [("user", BIKES), ("assistant", "The answer is 525."), ("user", text)]
    question = question_of(messages)
    alone = text in ("17 * 23", "half of 30")
    assert (computed(question, Settings()) is not None) == alone
    if alone:
        assert strategy_for(messages, question, "auto") == "auto"


# ------------------------------------------------------------------------------------------------- on a command line


def test_the_command_opens_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = ["--guide", "/nowhere/model.gguf"]
    assert solve.main([ASKED, *nowhere]) == 0
    out, err = capsys.readouterr()
    assert "17 * 23 = 391" in out
    assert "The answer is 391." in out
    assert "arithmetic: the question is a calculation; 0 tokens decoded in 0.0 s by no model" in err
    assert solve.main(["1/0", "--quiet", *nowhere]) == 0
    assert capsys.readouterr().out == "Division by zero has no value.\n"
    assert solve.main(["十七乘以二十三等于多少？", "--json", *nowhere]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "391"
    assert solve.main([ASKED, "--strategy", "cot", *nowhere]) != 0


def test_the_command_loads_no_engine() -> None:
    code = (
        "import sys; from sgft_edge import solve; solve.main(['2 + 2', '--quiet']); print('llama_cpp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "4\nFalse\n"


def test_rows_of_a_batch(llama: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"question": text}) + "\n" for text in (ASKED, "double 8", "5 / 0")))
    arguments = ["--input", str(source), "--output", str(target), "--guide", str(llama), "--adapter", "none"]
    assert solve.main(arguments) == 0
    rows = sorted(map(json.loads, target.read_text().splitlines()), key=lambda row: row["line"])
    assert [row["answer"] for row in rows] == ["391", "16", None]
    assert {row["solved_by"] for row in rows} == {"arithmetic"}
