import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from engines import Probe, assert_read_right, begin, by_base, sampled_tokens, written
from waiting import PATIENCE, wait_until

from sgft_edge.errors import ContextOverflow, EngineError, GrammarError, InputError
from sgft_edge.llama.engine import Engine
from sgft_edge.reasoning.backend import Completion, Usage
from sgft_edge.solving.loop import Job, Loop, Seats, Steps

TEXTS = [f"{n} loaves of bread and {n * n} pencils in a box. " * (n % 4 + 1) for n in range(24)]


@pytest.fixture
def engine(llama: Path) -> Engine:
    return Engine(llama, slots=3, window=1024, threads=2)


@pytest.fixture
def loop(engine: Engine) -> Iterator[Loop]:
    loop = Loop([engine])
    yield loop
    closing = threading.Thread(target=loop.close, daemon=True)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive(), "close() hangs"


def writes(
    text: str, n: int = 8, on_text: Callable[[str], None] | None = None, alone: bool = False
) -> Callable[[Seats], Steps]:
    """A task: read a text and return what is written after it, in two parts; `alone`, the same each time."""

    def start(seats: Seats) -> Steps:
        (sequence,) = next(iter(seats.values()))
        sequence.alone = alone
        begin(sequence._engine, text, sequence=sequence)
        first: Completion = yield sequence.complete(n - n // 2, on_text=on_text)
        second: Completion = yield sequence.complete(n // 2)
        return first.text + second.text

    return start


def outcome(job: Job) -> Any:
    return job.future.result(timeout=PATIENCE)


class Gate:
    """Holds the engine's thread where a text is shown, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def __call__(self, text: str) -> None:
        self.reached.set()
        assert self._opened.wait(PATIENCE)

    def await_text(self) -> None:
        assert self.reached.wait(PATIENCE)

    def open(self) -> None:
        self._opened.set()


def test_many_jobs_read_and_write_as_each_does_alone(llama: Path, loop: Loop, engine: Engine) -> None:
    probe = Probe(engine)

    def noted(text: str) -> Callable[[Seats], Steps]:
        """A task that also returns the tokens that it has read and written, and what those were sampled from."""

        def start(seats: Seats) -> Steps:
            (sequence,) = seats[engine]
            yield from writes(text)(seats)
            prompt = engine.model.tokenize(text, special=True)
            return prompt, sampled_tokens(sequence, prompt), probe.logits.pop(sequence.slot)

        return start

    jobs = [loop.submit(noted(text), {engine: 1}) for text in TEXTS]
    for job in jobs:
        prompt, written, found = outcome(job)
        assert len(written) == len(found) == 8
        assert written == [int(row.argmax()) for row in found]
        assert_read_right(llama, by_base(prompt), found)
    assert probe.most_sequences == 3
    assert engine.free == 3


def test_jobs_start_in_their_order(loop: Loop, engine: Engine) -> None:
    started: list[int] = []

    def numbered(n: int) -> Callable[[Seats], Steps]:
        def start(seats: Seats) -> Steps:
            started.append(n)
            return writes(TEXTS[n])(seats)

        return start

    jobs = [loop.submit(numbered(n), {engine: 1 + n % 2}) for n in range(8)]
    with pytest.raises(ValueError, match="unpack"):  # two sequences are not what these tasks expect
        outcome(jobs[1])
    for job in jobs[::2]:
        outcome(job)
    assert started == sorted(started)


def test_a_job_may_need_several_engines(llama: Path, engine: Engine) -> None:
    other = Engine(llama, slots=1, window=512)
    loop = Loop([engine, other])

    def start(seats: Seats) -> Steps:
        first = yield begin(engine, "How many?", sequence=seats[engine][0]).complete(6)
        second = yield begin(other, "How many?", sequence=seats[other][0]).complete(6)
        return first.text, second.text

    jobs = [loop.submit(start, {engine: 1, other: 1}) for _ in range(5)]
    for job in jobs:
        first, second = outcome(job)
        assert first == second != ""
    assert (engine.free, other.free) == (3, 1)
    loop.close()


# ------------------------------------------------------------------------------------------------- cancelling


def test_cancelling_a_running_job_frees_its_sequence(llama: Path) -> None:
    engine = Engine(llama, slots=1, window=1024)
    loop = Loop([engine])
    shown = threading.Event()
    long = loop.submit(writes("How many?", 1800, lambda text: shown.set()), {engine: 1})
    waiting = loop.submit(writes("How many?", 4), {engine: 1})
    assert shown.wait(PATIENCE)
    loop.cancel(long)
    with pytest.raises(CancelledError):
        outcome(long)
    with pytest.raises(EngineError):
        loop.result(long)
    assert outcome(waiting)
    assert engine.free == 1
    assert not engine.busy
    loop.close()


def test_cancelling_a_waiting_job_means_it_never_starts(llama: Path) -> None:
    engine = Engine(llama, slots=1, window=1024)
    loop = Loop([engine])
    gate, started = Gate(), []
    running = loop.submit(writes("How many?", 8, gate, alone=True), {engine: 1})
    waiting = [loop.submit(lambda seats: started.append(1), {engine: 1}) for _ in range(2)]  # type: ignore[arg-type, func-returns-value]
    last = loop.submit(writes("How many?", alone=True), {engine: 1})
    gate.await_text()
    for job in waiting:
        loop.cancel(job)
    gate.open()
    assert outcome(running) == outcome(last)
    assert not started
    assert all(job.future.cancelled() for job in waiting)
    assert engine.free == 1
    loop.close()


def test_a_cancelled_job_behind_others_ends_before_them(llama: Path) -> None:
    engine = Engine(llama, slots=1, window=1024)
    loop = Loop([engine])
    running = loop.submit(writes("How many?", 1000), {engine: 1})
    loop.submit(writes("How many?", 1000), {engine: 1})
    cancelled = loop.submit(writes("How many?", 1000), {engine: 1})
    loop.cancel(cancelled)
    wait_until(cancelled.future.done)
    assert not running.future.done()
    loop.close()


def test_cancelling_what_is_done_changes_nothing(loop: Loop, engine: Engine) -> None:
    job = loop.submit(writes("How many?", alone=True), {engine: 1})
    text = outcome(job)
    loop.cancel(job)
    assert outcome(loop.submit(writes("How many?", alone=True), {engine: 1})) == text
    assert outcome(job) == text


# ------------------------------------------------------------------------------------------------- failing


def raising(error: Exception, at: int) -> Callable[[Seats], Steps]:
    """A task that fails before its generator is made (0), before its first completion (1), or after it (2)."""

    def start(seats: Seats) -> Steps:
        if at == 0:
            raise error
        return steps(seats)

    def steps(seats: Seats) -> Steps:
        (sequence,) = next(iter(seats.values()))
        if at == 1:
            raise error
        yield begin(sequence._engine, "How many?", sequence=sequence).complete(3)
        raise error

    return start


@pytest.mark.parametrize("error", [InputError("bad"), ValueError("bad")])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_task_that_raises_hurts_nobody_else(loop: Loop, engine: Engine, error: Exception, at: int) -> None:
    before = loop.submit(writes("How many?", 40, alone=True), {engine: 1})
    bad = loop.submit(raising(error, at), {engine: 1})
    after = loop.submit(writes("How many?", 40, alone=True), {engine: 1})
    with pytest.raises(type(error), match="bad"):
        outcome(bad)
    assert outcome(before) == outcome(after)
    assert outcome(loop.submit(writes("How many?"), {engine: 1}))
    assert engine.free == 3


def test_a_task_that_cannot_show_its_text_fails_alone(loop: Loop, engine: Engine) -> None:
    def broken(text: str) -> None:
        raise OSError("nobody reads")

    before = loop.submit(writes("How many?", 40), {engine: 1})
    bad = loop.submit(writes("How many?", 40, broken), {engine: 1})
    with pytest.raises(OSError, match="nobody reads"):
        outcome(bad)
    assert outcome(before)
    assert engine.free == 3


def test_a_task_hears_of_its_own_errors_and_may_go_on(loop: Loop, engine: Engine) -> None:
    heard = []

    def start(seats: Seats) -> Steps:
        sequence = begin(engine, "How many?", sequence=seats[engine][0])
        for request in (sequence.complete(5000), sequence.complete(5, grammar="((("), sequence.complete(5, ("x", ""))):
            try:
                yield request
            except (ContextOverflow, GrammarError) as e:
                heard.append(type(e))
        try:
            sequence.begin(engine.model.tokenize("How many?"), None, Usage())
            yield sequence.complete(5, grammar="root ::= [z-a]")
        except GrammarError as e:
            heard.append(type(e))
        sequence.begin(engine.model.tokenize("How many?"), None, Usage())
        done: Completion = yield sequence.complete(5)
        return done.tokens

    neighbour = loop.submit(writes("How many?", 60), {engine: 1})
    assert outcome(loop.submit(start, {engine: 1})) == 5
    assert heard == [ContextOverflow, GrammarError, GrammarError]
    assert outcome(neighbour)
    assert engine.free == 3


def test_a_failed_decode_ends_the_jobs_in_it_and_no_later_one(loop: Loop, engine: Engine) -> None:
    gate = Gate()
    jobs = [loop.submit(writes(text, 60, gate), {engine: 1}) for text in TEXTS[:3]]
    waiting = loop.submit(writes("How many?", alone=True), {engine: 1})
    gate.await_text()
    decode = engine.context.decode

    def fail_once(n: int) -> None:
        engine.context.decode = decode  # type: ignore[method-assign]
        raise EngineError("llama_decode returned -3")

    engine.context.decode = fail_once  # type: ignore[method-assign]
    gate.open()
    for job in jobs:
        with pytest.raises(EngineError, match="returned -3"):
            outcome(job)
    fresh = Engine(engine.model.path, window=512, threads=2)
    assert outcome(waiting).startswith(written(fresh, "How many?", 4))
    fresh.close()
    assert engine.free == 3


def test_whoever_waits_is_told_when_the_thread_fails(loop: Loop, engine: Engine) -> None:
    gate = Gate()
    running = loop.submit(writes("How many?", 60, gate), {engine: 3})
    del running
    job = loop.submit(writes("How many?", 60, gate), {engine: 1})
    gate.await_text()

    def fail(n: int) -> None:
        raise RuntimeError("no such thing should happen")

    engine.context.decode = fail  # type: ignore[method-assign]
    waiting = loop.submit(writes("How many?"), {engine: 3})
    gate.open()
    for each in (job, waiting):
        with pytest.raises(EngineError, match="no such thing"):
            outcome(each)
    wait_until(lambda: not loop._thread.is_alive())
    with pytest.raises(EngineError):
        loop.submit(writes("How many?"), {engine: 1})


def test_a_job_that_never_fits_is_refused(loop: Loop, engine: Engine) -> None:
    try:
        job = loop.submit(writes("How many?"), {engine: 4})
    except EngineError:
        return
    with pytest.raises(EngineError, match="4"):
        job.future.result(timeout=3)


# ------------------------------------------------------------------------------------------------- closing


def test_close_stops_what_runs_and_what_waits(llama: Path) -> None:
    engine = Engine(llama, slots=1, window=1024)
    loop = Loop([engine])
    shown = threading.Event()
    running = loop.submit(writes("How many?", 1800, lambda text: shown.set()), {engine: 1})
    waiting = [loop.submit(writes("How many?"), {engine: 1}) for _ in range(3)]
    assert shown.wait(PATIENCE)
    loop.close()
    for job in (running, *waiting):
        assert job.future.cancelled()
        with pytest.raises(EngineError, match="closed before"):
            loop.result(job)
    with pytest.raises(EngineError, match="closed"):
        loop.submit(writes("How many?"), {engine: 1})
    with pytest.raises(EngineError, match="closed"):
        engine.model.handle  # noqa: B018
    loop.close()
    assert not loop._thread.is_alive()


def test_a_job_submitted_while_the_loop_is_closing_ends(llama: Path) -> None:
    engine = Engine(llama, slots=1, window=1024)
    loop = Loop([engine])
    gate = Gate()
    loop.submit(writes("How many?", 60, gate), {engine: 1})
    gate.await_text()
    late = loop.submit(writes("How many?"), {engine: 1})
    closing = [threading.Thread(target=loop.close) for _ in range(2)]
    for thread in closing:
        thread.start()
    wait_until(lambda: loop._closing)
    gate.open()
    for thread in closing:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    with pytest.raises(CancelledError):
        outcome(late)


def test_submit_and_cancel_from_many_threads(loop: Loop, engine: Engine) -> None:
    results: dict[bool, list[str]] = {True: [], False: []}

    def work(n: int) -> None:
        for i in range(4):
            alone = n % 2 == 0
            job = loop.submit(writes("How many?", 6, alone=alone), {engine: 1})
            if (n + i) % 3 == 0:
                loop.cancel(job)
                continue
            results[alone].append(outcome(job))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sum(map(len, results.values())) == sum((n + i) % 3 != 0 for n in range(6) for i in range(4))
    assert all(results[False])
    assert len(set(results[True])) == 1
    wait_until(lambda: engine.free == 3)
