"""Requests under way, and the limits that they keep."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sgft_edge import aio
from sgft_edge.errors import ContextOverflow, EngineError, GrammarError, InputError, SgftError
from sgft_edge.llama.schema_trial import try_out
from sgft_edge.reasoning.schema import ANY_OBJECT, JsonSchema
from sgft_edge.reasoning.solution import Event
from sgft_edge.server.metrics import Metrics
from sgft_edge.server.wire import ApiError, ChatRequest
from sgft_edge.solver import Solver

_SILENCE = 15.0  # seconds after which whoever waits for an event hears that there is none yet


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes on.

    `slots` requests are worked on at once and `queue` more may wait; `seconds` is the longest time of each from its
    arrival, `body` its bytes, `max_tokens` the tokens of a free answer, `votes` the answers to one question. `patience`
    is the longest wait in seconds for a request's head, for its body, and for a client that does not take the reply.
    """

    slots: int = 8
    queue: int = 32
    seconds: float = 600.0
    body: int = 1_000_000
    max_tokens: int = 2048
    votes: int = 8
    patience: float = 60.0


class Desk:
    """Takes requests on, as many as the limits let in; `solvers` stand by the names of their models."""

    def __init__(self, solvers: Mapping[str, Solver], limits: Limits) -> None:
        self.solvers = solvers
        self.limits = limits
        self.metrics = Metrics()
        self.under_way = 0
        self._mean_seconds = 1.0
        self._checker = ThreadPoolExecutor(1, "sgft-edge-schemas")  # strangers' schemas never take more than one core

    def begin(self, asked: ChatRequest) -> Work:
        """Take a request on. Raises `ApiError` where the queue is full."""
        if self.under_way >= self.limits.slots + self.limits.queue:
            raise ApiError(429, "the queue is full: try again later", code="queue_full")
        return Work(self, self.solvers[asked.model], asked)

    async def hold(self, solver: Solver, schema: JsonSchema) -> None:
        """Get ready for a schema, which is tried out in another process first. Raises `ApiError`."""

        def check() -> None:
            if schema != ANY_OBJECT:
                try_out(schema)
            solver.hold(schema)

        try:
            await asyncio.get_running_loop().run_in_executor(self._checker, check)
        except InputError as e:
            raise ApiError(400, f"response_format: {e}", "response_format") from e
        except SgftError as e:
            raise _as_api_error(e) from e

    def close(self) -> None:
        """Wait for the schema under trial, drop those that wait, and free the models."""
        self._checker.shutdown(cancel_futures=True)
        for solver in self.solvers.values():
            solver.close()

    def note(self, seconds: float) -> None:
        """What a request took."""
        self._mean_seconds += 0.1 * (seconds - self._mean_seconds)

    @property
    def running(self) -> int:
        """Requests that are worked on."""
        return min(self.under_way, self.limits.slots)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self.under_way - self.running

    @property
    def retry_after(self) -> int:
        """Whole seconds after which a place in the queue is likely to be free."""
        return max(1, round(self._mean_seconds / self.limits.slots))


class Work:
    """One request under way: to be started, and closed."""

    def __init__(self, desk: Desk, solver: Solver, asked: ChatRequest) -> None:
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()
        self._begun = False
        self._desk = desk
        self._solver = solver
        self.asked = asked
        self._events: aio.Events | None = None
        desk.under_way += 1
        self._open = True

    async def start(self) -> None:
        """Begin to answer, once a schema is known to be one that can be held. Raises `ApiError`."""
        asked = self.asked
        if isinstance(schema := asked.settings.grammar, JsonSchema):
            await self._desk.hold(self._solver, schema)
        try:
            self._events = aio.Events(self._solver, asked.question, asked.settings)
        except SgftError as e:
            raise _as_api_error(e) from e

    async def next(self) -> Event | None:
        """The next event; None where there is none for a while. Raises `ApiError`."""
        assert self._events is not None
        left = self._began + self._desk.limits.seconds - self._clock()
        try:
            event = await asyncio.wait_for(self._events.get(), min(left, _SILENCE))
        except TimeoutError:
            if left > _SILENCE:
                return None
            seconds = self._desk.limits.seconds
            raise ApiError(504, f"not answered in {seconds:g} seconds", code="timeout") from None
        except SgftError as e:
            raise _as_api_error(e) from e
        if not self._begun and (event.text or event.solution is not None):
            self._begun = True
            self._desk.metrics.began(self._clock() - self._began)
        if event.solution is not None:
            for usage in event.solution.usage.values():
                self._desk.metrics.used(usage.prefilled, usage.decoded, usage.reused)
        return event

    def close(self) -> None:
        """Stop the work, and free its place."""
        if self._open:
            self._open = False
            if self._events is not None:
                self._events.close()
            self._desk.under_way -= 1
            self._desk.note(self._clock() - self._began)


def _as_api_error(error: SgftError) -> ApiError:
    if isinstance(error, ContextOverflow):
        return ApiError(400, str(error), "messages", "context_length_exceeded")
    if isinstance(error, GrammarError):  # found only while the text is written
        return ApiError(400, f"response_format: {error}", "response_format")
    if isinstance(error, InputError):
        return ApiError(400, str(error))
    return ApiError(503 if isinstance(error, EngineError) else 500, str(error))
