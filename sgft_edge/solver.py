"""Solve questions: one at a time, as a stream of events, or many at once."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Self

from sgft_edge.errors import GuidanceError, InputError, SgftError
from sgft_edge.reasoning.backend import Completion, Request
from sgft_edge.reasoning.computed import computed, events_of
from sgft_edge.reasoning.plain import reshape
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.schema import JsonSchema
from sgft_edge.reasoning.settings import DEFAULT_CONTEXT, Settings
from sgft_edge.reasoning.solution import Event, Solution
from sgft_edge.reasoning.strategies import STRATEGIES, choose
from sgft_edge.reasoning.task import Task, stepwise
from sgft_edge.solving.adapters import Name
from sgft_edge.solving.cast import Cast, open_cast
from sgft_edge.solving.loop import Job, Loop, Seats
from sgft_edge.solving.votes import Ballot, votes_of
from sgft_edge.solving.wanted import Wanted
from sgft_edge.text.guidance import parse

Work = Generator[Request, Completion, Solution]


class Solver:
    """A guide and an answerer, ready for questions; a context manager.

        with Solver.open() as solver:
            print(solver.solve("A shop sells 5 bikes for 120 dollars each. How much is that?").text)

    Its methods may be called from any thread: a thread of its own does the work, for all callers in one batch.
    """

    def __init__(self, cast: Cast, settings: Settings | None = None, beside: Solver | None = None) -> None:
        self.cast = cast
        self.settings = settings or Settings()
        if beside is None:
            self._loop = Loop(cast.engines)
        else:
            self._loop = beside._loop
            self._loop.add(cast.engines)

    @classmethod
    def open(
        cls,
        guide: Name | None = None,
        answerer: Name | None = None,
        *,
        adapter: Name = "auto",
        answerer_adapter: Name = "auto",
        settings: Settings | None = None,
        context: int = DEFAULT_CONTEXT,
        parallel: int = 1,
        threads: int | None = None,
        device: str = "auto",
        require_gpu: bool = False,
        max_memory: int | None = None,
        beside: Solver | None = None,
    ) -> Self:
        """Load models. Nothing is fetched: a missing one raises `ModelMissing` with the command that does.

        `guide` and `answerer` are names (`sgft-edge models list`), GGUF files, or endpoints (`openai:URL#MODEL`);
        without a guide, the model that `sgft_edge.solving.default` chooses; without an answerer one model does both.
        `adapter` is the guide's LoRA: a name, a file, "none", or "auto" for the one that comes with the package;
        `answerer_adapter` the answerer's, where "auto" is the guide's for what that was trained to answer, and what
        comes with the package for the rest.
        `context` is the room of one question in tokens, `parallel` how many are worked on at once, `threads`
        defaults to the physical cores. `max_memory` is what this process may have in bytes: where an estimate exceeds
        it, `parallel` is halved down to 1, then `context` down to 512, and `cast.warnings` says so; where that does
        not help, nothing is loaded. A solver `beside` which this one is opened does the work of both in its thread,
        in turn, so that they do not contend for the cores; they are closed together.
        Raises `InputError`, `ModelError` or `EngineError`.
        """
        settings = settings or Settings()
        wanted = Wanted(
            guide=guide,
            answerer=answerer,
            adapter=adapter,
            answerer_adapter=answerer_adapter,
            plan=settings.plan,
            context=context,
            parallel=parallel,
            threads=threads,
            device=device,
            require_gpu=require_gpu,
            max_memory=max_memory,
        )
        return cls(open_cast(wanted), settings, beside)

    def solve(self, question: str | Question, settings: Settings | None = None) -> Solution:
        """Solve one question. Raises `SgftError`, `ContextOverflow` for one that is too long among them."""
        ballot = self.submit(question, settings)
        try:
            return ballot.result()
        except BaseException:
            ballot.cancel()
            raise

    def stream(self, question: str | Question, settings: Settings | None = None) -> Generator[Event]:
        """Solve one question and show how; the last event brings the solution. Closing the iterator stops the work.

        What is shown of several votes is the first.
        """
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        ballot = self.submit(question, settings, events.put)
        ballot.when_done(lambda: events.put(None))
        try:
            while (event := events.get()) is not None:
                yield event
            yield Event("solution", solution=ballot.result())
        finally:
            ballot.cancel()

    def solve_many(
        self, questions: Iterable[str | Question], settings: Settings | None = None
    ) -> Iterator[Solution | SgftError]:
        """Solve questions side by side, `parallel` at once; yields a solution or an error for each, in their order."""
        waiting: dict[int, Solution | SgftError] = {}
        following = 0
        for index, outcome in self.solve_each(questions, settings):
            waiting[index] = outcome
            while following in waiting:
                yield waiting.pop(following)
                following += 1

    def solve_each(
        self, questions: Iterable[str | Question], settings: Settings | None = None
    ) -> Iterator[tuple[int, Solution | SgftError]]:
        """As `solve_many`, but each as soon as it is finished, with its place among the questions (from 0).

        `questions` is read only a little ahead of the work. Closing the iterator stops the work.
        """
        under_way: dict[Ballot, int] = {}
        finished: queue.SimpleQueue[Ballot] = queue.SimpleQueue()
        ahead = 2 * max(engine.slots for engine in self.cast.engines)
        source = enumerate(questions)
        try:
            while True:
                while len(under_way) < ahead and (item := next(source, None)) is not None:
                    index, question = item
                    try:
                        ballot = self.submit(question, settings)
                    except InputError as e:
                        yield index, e
                        continue
                    under_way[ballot] = index
                    ballot.when_done(partial(finished.put, ballot))
                if not under_way:
                    return
                ballot = finished.get()
                try:
                    outcome: Solution | SgftError = ballot.result()
                except SgftError as e:
                    outcome = e
                yield under_way.pop(ballot), outcome
        finally:
            for ballot in under_way:
                ballot.cancel()

    def require(self, strategy: str, stepwise: bool = False, shaped: bool = False) -> None:
        """Raise `InputError` where an endpoint cannot do what a strategy asks of it."""
        found = STRATEGIES[strategy]
        if found.planned or shaped:
            self.cast.answerer.require_grammar()
        if found.planned and stepwise:
            self.cast.guide.require_grammar()
        if found.interrupts:
            self.cast.answerer.require_interruption()

    def hold(self, schema: JsonSchema) -> None:
        """Get ready to hold final texts to a JSON schema. Raises `InputError` where none can be."""
        self.cast.answerer.hold(schema)

    def close(self) -> None:
        """Stop all work and free the models; their memory is given back."""
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self,
        question: str | Question,
        settings: Settings | None = None,
        emit: Callable[[Event], None] = lambda event: None,
    ) -> Ballot:
        """Begin to solve a question. `emit` must not wait: it is called in the solver's own thread.

        A calculation is computed before this returns, and `emit` called in the caller's thread.
        """
        asked = Question(question) if isinstance(question, str) else question
        settings = settings or self.settings
        if (solution := computed(asked, settings)) is not None:
            for event in events_of(solution):
                emit(event)
            return Ballot(self._loop, [Job.ended(solution)])
        if settings.plan == "auto":
            settings = replace(settings, plan=self.cast.plan)
        strategy, why = choose(asked, settings.strategy, self.cast.auto, self.cast.auto_choices)
        interleaved = STRATEGIES[strategy].planned and stepwise(asked, settings)
        self.require(strategy, interleaved, isinstance(settings.grammar, str))
        needs = self.cast.sequences(interleaved)
        if any(engine.slots < n for engine, n in needs.items()):
            raise InputError("plan stepwise needs two sequences a question: open the solver with this plan")

        alone = settings.alone  # of all votes; each has a seed of its own
        clock: list[float] = []  # when the first vote began

        def start(vote: Settings, show: Callable[[Event], None], seats: Seats) -> Work:
            cast = self.cast
            clock.append(time.perf_counter())
            guide = cast.guide.turn(seats[cast.guide.engine][0], alone)
            answerer = cast.answerer.turn(seats[cast.answerer.engine][-1], alone)
            return self._work(Task(asked, guide, answerer, vote, show), strategy, why, clock[0])

        votable = asked.has_short_answer and strategy != "guidance" and not STRATEGIES[strategy].replies
        votes = votes_of(settings if votable else replace(settings, votes=1))
        shown = [emit, *[lambda event: None] * (len(votes) - 1)]
        return Ballot(
            self._loop,
            [self._loop.submit(partial(start, *vote), needs) for vote in zip(votes, shown, strict=True)],
        )

    def _work(self, task: Task, strategy: str, why: str, began: float) -> Work:
        draft = yield from STRATEGIES[strategy].run(task)
        if task.settings.grammar is not None and not STRATEGIES[strategy].replies:
            draft = yield from reshape(task, draft)
        return Solution(
            id=task.question.id,
            question=task.question.text,
            choices=dict(task.question.choices),
            strategy=strategy,
            why=why,
            solved_by=draft.solved_by,
            notes=tuple(draft.notes),
            guidance=_steps(draft.guidance),
            steps=draft.steps,
            text=draft.text,
            answer=draft.answer,
            truncated=draft.truncated,
            seed=task.settings.sampling.first_draw,
            usage={"guide": task.guide.usage, "answerer": task.answerer.usage},
            seconds=round(time.perf_counter() - began, 4),
            models=self.cast.models,
            digests=self.cast.digests,
            device=self.cast.device,
            offloaded_layers=self.cast.offloaded_layers,
        )


def _steps(guidance: str) -> tuple[str, ...]:
    """The steps of a guidance; one that has no numbered steps as its lines."""
    try:
        return parse(guidance).steps
    except GuidanceError:
        return tuple(line.strip() for line in guidance.splitlines() if line.strip())
