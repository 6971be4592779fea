"""What a training shows on stderr: a bar on a terminal, a line for every fiftieth step elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sgft_edge.terminal.streams import remark

_LINES = 50


@contextmanager
def display(steps: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields what is to be called with the metrics of each of `steps` steps."""
    if not sys.stderr.isatty():
        yield lambda row: _line(row, steps)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task("", total=steps)

        def show(row: Mapping[str, Any]) -> None:
            bars.update(task, completed=row["step"], description=_told(row, steps))
            if "dev_loss" in row:
                bars.console.print(f"step {row['step']}: {_told(row, steps)}", highlight=False)

        yield show


def _line(row: Mapping[str, Any], steps: int) -> None:
    if "dev_loss" in row or row["step"] % max(1, steps // _LINES) == 0:
        remark(f"step {row['step']} of {steps}: {_told(row, steps)}")


def _told(row: Mapping[str, Any], steps: int) -> str:
    left = (steps - row["step"]) * row["seconds"] / row["step"]
    dev = f", dev loss {row['dev_loss']:.4f}" if "dev_loss" in row else ""
    dev += f", {row['valid']:.0%} valid" if "valid" in row else ""
    rate = row["tokens"] / max(row["seconds"], 1e-9)
    return f"loss {row['loss']:.4f}{dev}, {rate:.0f} tokens a second, {left / 60:.0f} minutes left"
