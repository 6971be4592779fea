"""Votes: what is asked of each, who wins, and what they cost together."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from solvers import BIKES, FREE, all_free, open_tiny, same

from sgft_edge.errors import ContextOverflow, InputError, SgftError
from sgft_edge.reasoning.backend import Usage
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import SAMPLED, Sampling, Settings
from sgft_edge.reasoning.solution import Solution
from sgft_edge.solver import Solver
from sgft_edge.solving.loop import Loop
from sgft_edge.solving.votes import Ballot, elect, votes_of

THREE = replace(FREE, votes=3)


@pytest.fixture(scope="module")
def solver(llama: Path) -> Iterator[Solver]:
    with open_tiny(llama, parallel=3) as solver:
        yield solver


def voted(answer: str | None, decoded: int = 0, seconds: float = 0.0) -> Solution:
    return Solution(
        question="?", strategy="cot", why="", solved_by="cot", text=f"by {decoded}", answer=answer, truncated=False,
        seed=0, usage={"guide": Usage(), "answerer": Usage(1, decoded, 2, 3)}, seconds=seconds, models={}, digests={},
        device="cpu", offloaded_layers=0,
    )  # fmt: skip


def test_the_first_vote_is_as_asked_and_the_others_are_sampled() -> None:
    greedy, *sampled = votes_of(Settings("cot", votes=3, sampling=Sampling(seed=2**32 - 3)))
    assert greedy == Settings("cot", sampling=Sampling(seed=2**32 - 3))
    assert [vote.sampling for vote in sampled] == [replace(SAMPLED, seed=2**32 - 1), replace(SAMPLED, seed=1)]
    warm = votes_of(Settings("cot", votes=3, sampling=Sampling(1.0, 0.9, 0.1)))
    assert [vote.sampling for vote in warm] == [Sampling(1.0, 0.9, 0.1, seed) for seed in (None, 2, 4)]
    with pytest.raises(InputError, match="votes: expected from 1 to 1000, found 0"):
        Settings(votes=0)


@pytest.mark.parametrize(
    ("answers", "winner", "counts"),
    [
        (["7", "8", "8"], 1, {"8": 2, "7": 1}),
        (["7", "8"], 0, {"7": 1, "8": 1}),
        (["9", "8", "7", "7", "8"], 1, {"8": 2, "7": 2, "9": 1}),
        ([None, None, "8"], 2, {"8": 1}),
        ([None, None], 0, {}),
    ],
)
def test_who_wins(answers: list[str | None], winner: int, counts: dict[str, int]) -> None:
    elected = elect([voted(answer, number) for number, answer in enumerate(answers)])
    assert (elected.answer, elected.text) == (answers[winner], f"by {winner}")
    assert elected.votes == counts


def test_all_votes_are_paid_for() -> None:
    elected = elect([voted("7", 10, 1.0), voted("8", 20, 3.0), voted("8", 30, 2.0)])
    assert elected.usage == {"guide": Usage(), "answerer": Usage(3, 60, 6, 9)}
    assert (elected.decoded, elected.seconds) == (60, 3.0)


def test_one_vote_is_the_solution_itself() -> None:
    assert elect([voted("7")]) == voted("7")


def test_votes_are_the_solutions_of_their_settings(solver: Solver) -> None:
    apart = [solver.solve(BIKES, vote) for vote in votes_of(THREE)]
    together = solver.solve(BIKES, THREE)
    expected = elect(apart)
    assert same(together, expected)
    assert together.decoded == sum(solution.decoded for solution in apart)
    assert sum(together.votes.values()) == sum(solution.answer is not None for solution in apart)
    assert len({solution.text for solution in apart}) > 1
    (many,) = solver.solve_many([BIKES], THREE)
    assert isinstance(many, Solution)
    assert same(many, expected)
    *shown, last = solver.stream(BIKES, THREE)
    assert last.solution is not None
    assert same(last.solution, expected)
    assert "".join(event.text for event in shown if event.kind == "answer").strip() == apart[0].text
    assert all_free(solver)


def test_what_has_no_short_answer_is_answered_once(solver: Solver) -> None:
    solution = solver.solve("Why is the sea salty?", THREE)
    assert solution.votes == {}
    assert solution.decoded == FREE.max_tokens
    letters = solver.solve(Question("Is it so?", {"A": "yes", "B": "no"}), THREE)
    assert sum(letters.votes.values()) == 3


def test_closing_a_stream_stops_all_votes(solver: Solver) -> None:
    stream = solver.stream(BIKES, Settings("cot", max_tokens=700, votes=7))
    next(stream)
    stream.close()
    assert solver.solve("What is 1 + 1?", FREE).text
    assert all_free(solver)


def test_votes_that_fail_are_left_out_until_none_is_left() -> None:
    def vote(outcome: Solution | SgftError) -> Any:
        def start(_: object) -> Generator[Any, Any, Solution]:
            if isinstance(outcome, SgftError):
                raise outcome
            return outcome
            yield

        return start

    loop = Loop([])
    try:
        overflow = ContextOverflow(3000, 2048)
        for outcomes, answer in (([overflow, voted("8"), voted("7"), voted("7")], "7"), ([voted("8"), overflow], "8")):
            assert Ballot(loop, [loop.submit(vote(outcome), {}) for outcome in outcomes]).result().answer == answer
        with pytest.raises(ContextOverflow):
            Ballot(loop, [loop.submit(vote(overflow), {}) for _ in range(2)]).result()
    finally:
        loop.close()
