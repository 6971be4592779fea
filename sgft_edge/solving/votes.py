"""Votes, or self-consistency: one question answered several times, and the answer that most agree on.

Wang et al. (2022), https://arxiv.org/abs/2203.11171
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from sgft_edge.errors import EngineError, SgftError
from sgft_edge.reasoning.backend import Usage
from sgft_edge.reasoning.settings import SAMPLED, Settings
from sgft_edge.reasoning.solution import Solution
from sgft_edge.solving.loop import Job, Loop


def votes_of(settings: Settings) -> list[Settings]:
    """The settings of each vote: the first is solved as asked, the others sampled, each from a seed of its own."""
    asked = settings.sampling
    sampled = asked if asked.temperature > 0 else SAMPLED
    others = (replace(sampled, seed=(asked.first_draw + 2 * vote) % 2**32) for vote in range(1, settings.votes))
    return [replace(settings, sampling=sampling, votes=1) for sampling in (asked, *others)]


def elect(solutions: Sequence[Solution]) -> Solution:
    """The solution whose answer most others agree with, the earliest of equals; one without an answer has no say.

    It brings what all of them took together: `usage` is their sum, `seconds` end with the last of them.
    """
    counts = Counter(solution.answer for solution in solutions if solution.answer is not None)
    winner = max(solutions, key=lambda solution: counts[solution.answer or ""])
    if len(solutions) == 1:
        return winner
    usage = {role: _sum([solution.usage[role] for solution in solutions]) for role in winner.usage}
    seconds = max(solution.seconds for solution in solutions)
    return replace(winner, votes={str(answer): n for answer, n in counts.most_common()}, usage=usage, seconds=seconds)


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(*(sum(getattr(usage, field.name) for usage in usages) for field in fields(Usage)))


class Ballot:
    """A question under way: as many jobs as it has votes."""

    def __init__(self, loop: Loop, jobs: Sequence[Job]) -> None:
        self._loop = loop
        self._jobs = jobs

    def result(self) -> Solution:
        """Wait for the votes and count them. Where all have failed, raises what the first raised.

        Raises `EngineError` where the engine or an endpoint failed under any of them.
        """
        solutions: list[Solution] = []
        errors: list[SgftError] = []
        for job in self._jobs:
            try:
                solutions.append(self._loop.result(job))
            except EngineError:
                raise  # the other votes are no answer to what was asked
            except SgftError as e:
                errors.append(e)
        if not solutions:
            raise errors[0]
        return elect(solutions)

    def cancel(self) -> None:
        for job in self._jobs:
            self._loop.cancel(job)

    def when_done(self, call: Callable[[], None]) -> None:
        """Have something called once all votes are there, or have failed."""
        missing = itertools.count(len(self._jobs) - 1, -1)
        for job in self._jobs:
            job.future.add_done_callback(lambda _: call() if next(missing) == 0 else None)
