"""Requests under way, and the limits that they keep."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from sgft_edge import aio
from sgft_edge.errors import ContextOverflow, EngineError, InputError, SgftError
from sgft_edge.server.wire import ApiError, Asked
from sgft_edge.solution import Event
from sgft_edge.solver import Solver

_SILENCE = 15.0  # seconds after which whoever waits for an event hears that there is none yet


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes on.

    `slots` requests are worked on at once and `queue` more may wait; `seconds` is the longest time of each from its
    arrival, `body` its bytes, `max_tokens` the tokens of a free answer, `votes` the answers to one question.
    """

    slots: int = 8
    queue: int = 32
    seconds: float = 600.0
    body: int = 1_000_000
    max_tokens: int = 2048
    votes: int = 8


class Desk:
    """Takes requests on, as many as the limits let in; `solvers` stand by the names of their models."""

    def __init__(self, solvers: Mapping[str, Solver], limits: Limits) -> None:
        self.solvers = solvers
        self.limits = limits
        self.under_way = 0
        self._mean_seconds = 1.0

    def begin(self, asked: Asked) -> Work:
        """Start to answer. Raises `ApiError`: an unknown model, a full queue, a question that cannot be asked."""
        if asked.model not in self.solvers:
            found = f"expected one of {', '.join(self.solvers)}, found {asked.model[:80]!r}"
            raise ApiError(404, f"model: {found}", "model", "model_not_found")
        if self.under_way >= self.limits.slots + self.limits.queue:
            raise ApiError(429, "the queue is full: try again later", code="queue_full")
        return Work(self, self.solvers[asked.model], asked)

    def note(self, seconds: float) -> None:
        """What a request took."""
        self._mean_seconds += 0.1 * (seconds - self._mean_seconds)

    @property
    def retry_after(self) -> int:
        """Whole seconds after which a place in the queue is likely to be free."""
        return max(1, round(self._mean_seconds / self.limits.slots))


class Work:
    """One request under way; to be closed."""

    def __init__(self, desk: Desk, solver: Solver, asked: Asked) -> None:
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._desk = desk
        self.asked = asked
        try:
            self._events = aio.Events(solver, asked.question, asked.settings)
        except SgftError as e:
            raise _as_api_error(e) from e
        desk.under_way += 1
        self._open = True

    async def next(self) -> Event | None:
        """The next event; None where there is none for a while. Raises `ApiError`."""
        left = self._began + self._desk.limits.seconds - self._clock()
        try:
            return await asyncio.wait_for(self._events.get(), min(left, _SILENCE))
        except TimeoutError:
            if left > _SILENCE:
                return None
            seconds = self._desk.limits.seconds
            raise ApiError(504, f"not answered in {seconds:g} seconds", code="timeout") from None
        except SgftError as e:
            raise _as_api_error(e) from e

    def close(self) -> None:
        """Stop the work, and free its place."""
        if self._open:
            self._open = False
            self._events.close()
            self._desk.under_way -= 1
            self._desk.note(self._clock() - self._began)


def _as_api_error(error: SgftError) -> ApiError:
    if isinstance(error, ContextOverflow):
        return ApiError(400, str(error), "messages", "context_length_exceeded")
    if isinstance(error, InputError):
        return ApiError(400, str(error))
    return ApiError(503 if isinstance(error, EngineError) else 500, str(error))
