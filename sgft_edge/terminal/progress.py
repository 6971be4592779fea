"""Progress of a long run on stderr: a bar with rate and time left on a terminal, a line for every tenth elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from sgft_edge.terminal.streams import remark


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Yields what is to be called after each of `total` rows."""
    if not sys.stderr.isatty():
        yield _lines(title, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task(title, total=total, rate="")
        began = time.perf_counter()
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            bars.update(task, completed=done, rate=_rate(done, began))

        yield advance


@contextmanager
def counted_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what is to be called with rows done and their total: with 0 at the beginning, then after each."""
    with ExitStack() as stack:
        advance = _idle

        def count(done: int, total: int) -> None:
            nonlocal advance
            if done:
                advance()
            else:
                advance = stack.enter_context(progress(title, total))

        yield count


def _idle() -> None:
    """Before the total is known there is nothing to show."""


def _lines(title: str, total: int) -> Callable[[], None]:
    began = time.perf_counter()
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done * 10 // total > (done - 1) * 10 // total:
            remark(f"{title}: {done} of {total}, {_rate(done, began)}")

    return advance


def _rate(done: int, began: float) -> str:
    return f"{60 * done / max(time.perf_counter() - began, 1e-9):.1f} a minute"
