"""Solving from asyncio: the events of a question, without a thread that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Settings
from sgft_edge.reasoning.solution import Event, Solution
from sgft_edge.solver import Solver


class Events:
    """A question's events, the solution last. Raises what `Solver.submit` raises."""

    def __init__(self, solver: Solver, question: str | Question, settings: Settings | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()

        def tell(event: Event | None) -> None:
            with suppress(RuntimeError):  # the event loop was closed: nobody listens
                loop.call_soon_threadsafe(self._queue.put_nowait, event)

        self._ballot = solver.submit(question, settings, tell)
        self._ballot.when_done(lambda: tell(None))

    async def get(self) -> Event:
        """The next event; none is lost where the wait is cancelled. Raises what `Solver.solve` raises."""
        event = await self._queue.get()
        return event if event is not None else Event("solution", solution=self._ballot.result())

    def close(self) -> None:
        """Stop the work, if it is still going on."""
        self._ballot.cancel()


async def stream(solver: Solver, question: str | Question, settings: Settings | None = None) -> AsyncGenerator[Event]:
    """As `Solver.stream`; closing the generator stops the work.

    async with aclosing(stream(solver, "...")) as events:
        async for event in events:
            ...
    """
    events = Events(solver, question, settings)
    try:
        event = await events.get()
        while event.solution is None:
            yield event
            event = await events.get()
        yield event
    finally:
        events.close()


async def solve(solver: Solver, question: str | Question, settings: Settings | None = None) -> Solution:
    """As `Solver.solve`; cancelling the task stops the work."""
    async with aclosing(stream(solver, question, settings)) as events:
        async for event in events:
            if event.solution is not None:
                return event.solution
    raise AssertionError("a stream ends with a solution")
