"""The owner thread: it alone touches the engines, and steps many questions at once.

A task is a generator that yields engine requests and is sent their completions;
its return value is the result. While one task waits for its tokens the others'
tokens are decoded in the same batch.
"""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

from sgft_edge.errors import EngineError, SgftError
from sgft_edge.reasoning.backend import Backend, Completion, Request

Steps = Generator[Request, Completion, Any]
Seats = dict[Backend, list[Any]]


@dataclass(eq=False)
class Job:
    """One task on its way: `start` makes the generator once the sequences it needs are free."""

    start: Callable[[Seats], Steps]
    needs: Mapping[Backend, int]
    future: Future[Any] = field(default_factory=Future)
    seats: Seats = field(default_factory=dict)
    steps: Steps | None = None
    waiting: Request | None = None
    cancelled: bool = False

    @classmethod
    def ended(cls, result: Any) -> Job:
        """One that needed no engine."""
        job = cls(lambda seats: iter(()), {})  # type: ignore[arg-type, return-value]
        job.future.set_result(result)
        return job


_open: weakref.WeakSet[Loop] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread that is still inside llama.cpp when the interpreter goes would take the process down with it."""
    for loop in list(_open):
        loop.close()


class Loop:
    """Runs jobs over engines in one thread of its own; `submit` and `cancel` may be called from any thread."""

    def __init__(self, engines: list[Backend]) -> None:
        self._engines = list(engines)
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._closing = False  # set once; a job submitted later is refused, one before it always ends
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sgft-edge-engine", daemon=True)
        self._thread.start()
        _open.add(self)

    def add(self, engines: list[Backend]) -> None:
        """Step these engines too, and free them at the end."""
        with self._lock:
            if self._closing:
                raise EngineError("the solver is closed: open a new one")
            self._engines = [*self._engines, *engines]

    def submit(self, start: Callable[[Seats], Steps], needs: Mapping[Backend, int]) -> Job:
        for engine, sequences in needs.items():
            if sequences > engine.slots:
                raise EngineError(f"a task needs {sequences} sequences, the engine has {engine.slots}")
        job = Job(start, needs)
        with self._lock:
            if self._closing:
                raise EngineError("the solver is closed: open a new one")
            self._inbox.put(job)
        return job

    def result(self, job: Job) -> Any:
        """Wait for a job's result. Raises what the job raised, and `EngineError` where the loop was closed first."""
        try:
            return job.future.result()
        except CancelledError:
            raise EngineError("the solver was closed before the question was solved") from None

    def cancel(self, job: Job) -> None:
        """Stop a job; its sequences are free again after the decode call that is under way."""
        job.cancelled = True
        self._inbox.put(None)

    def close(self) -> None:
        """Stop everything, wait for the decode call under way, and free the engines."""
        with self._lock:
            self._closing = True
        self._inbox.put(None)
        self._thread.join()
        if not self._closed:
            self._closed = True
            _open.discard(self)
            for engine in self._engines:
                engine.close()

    def _run(self) -> None:
        failure = None
        try:
            while not self._closing:
                self._turn()
        except Exception as e:  # noqa: BLE001 - whoever waits must be told of any
            failure = EngineError(f"the engine's thread has failed ({type(e).__name__}: {e}): open a new solver")
        with self._lock:
            self._closing = True
        self._receive(block=False)
        for job in [*self._running, *self._waiting]:
            if failure is None:
                job.future.cancel()
            elif not job.future.done():
                job.future.set_exception(failure)

    def _turn(self) -> None:
        self._receive(block=not self._running)
        for job in [j for j in self._running if j.cancelled]:
            self._end(job)
        for job in [j for j in self._waiting if j.cancelled]:
            self._waiting.remove(job)
            job.future.cancel()
        self._admit()
        for engine in self._engines:
            if engine.busy:
                self._step(engine)

    def _receive(self, block: bool) -> None:
        while True:
            try:
                job = self._inbox.get(block and not self._waiting)
            except queue.Empty:
                return
            if job is not None:
                self._waiting.append(job)
            block = False

    def _admit(self) -> None:
        """Start waiting jobs in their order while every engine has the sequences that the next one needs."""
        while self._waiting:
            job = self._waiting[0]
            if any(engine.free < n for engine, n in job.needs.items()):
                return
            self._waiting.popleft()
            job.seats = {engine: [engine.acquire() for _ in range(n)] for engine, n in job.needs.items()}
            self._running.append(job)
            try:
                job.steps = job.start(job.seats)
            except Exception as e:  # noqa: BLE001 - whatever a task raises belongs to whoever waits for it
                self._end(job, error=e)
                continue
            self._resume(job, None)

    def _step(self, engine: Backend) -> None:
        try:
            ended = engine.step()
        except SgftError as e:
            for job in [j for j in self._running if j.waiting is not None and j.waiting.engine is engine]:
                self._end(job, error=e)
            return
        for request in ended:
            self._resume(next(j for j in self._running if j.waiting is request), request)

    def _resume(self, job: Job, done: Request | None) -> None:
        """Give a task its completion, or its error, and submit what it asks for next."""
        assert job.steps is not None
        try:
            if done is None:
                job.waiting = next(job.steps)
            elif done.error is not None:
                job.waiting = job.steps.throw(done.error)
            else:
                assert done.result is not None
                job.waiting = job.steps.send(done.result)
            while True:
                try:
                    job.waiting.engine.submit(job.waiting)
                    return
                except SgftError as e:
                    job.waiting = job.steps.throw(e)
        except StopIteration as stop:
            self._end(job, result=stop.value)
        except Exception as e:  # noqa: BLE001 - whatever a task raises belongs to whoever waits for it
            self._end(job, error=e)

    def _end(self, job: Job, result: Any = None, error: Exception | None = None) -> None:
        if job.steps is not None:
            job.steps.close()
        for sequences in job.seats.values():
            for sequence in sequences:
                sequence.close()
        if job.cancelled:
            job.future.cancel()
        elif error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)
        self._running.remove(job)
