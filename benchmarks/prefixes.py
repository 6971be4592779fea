"""A fixed prompt prefix taken from disk against the same prefix decoded.

usage: python -m benchmarks.prefixes MODEL [--repeats 5] [--threads N]

The prefix is that of strategy `exact`. Both fill an empty sequence of an engine whose weights are in memory, in turn.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import click

from sgft_edge import Question
from sgft_edge.host.machine import physical_cores
from sgft_edge.llama.engine import Cell, Engine
from sgft_edge.llama.prefixes import PrefixStore
from sgft_edge.llama.tokens import prompt_tokens, template_of
from sgft_edge.reasoning import prompts
from sgft_edge.store.places import resolve


@click.command()
@click.argument("model")
@click.option("--repeats", default=5, show_default=True)
@click.option("--threads", default=physical_cores(), show_default=True)
def main(model: str, repeats: int, threads: int) -> None:
    """Print the medians and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        store = PrefixStore((), Path(folder))
        engine = Engine(resolve(model), window=1024, threads=threads, prefixes=store)
        tokens, fixed = prompt_tokens(engine.model, template_of(engine.model), prompts.execute(Question("How many?")))
        cells: list[Cell] = [(token, None) for token in tokens[:fixed]]
        _fill(engine, cells)  # weights into memory, and the state onto disk
        times = []
        for _ in range(repeats):
            loaded = _fill(engine, cells)
            (state,) = Path(folder).iterdir()
            size = state.stat().st_size
            state.unlink()
            times.append((_fill(engine, cells), loaded))
    decoded, loaded = (median(side) for side in zip(*times, strict=True))
    print(f"{fixed} tokens, {size / 1e6:.1f} MB: decoded and written {1000 * decoded:.1f} ms", end=", ")
    print(f"from disk {1000 * loaded:.1f} ms, {decoded / loaded:.1f}x faster")


def _fill(engine: Engine, cells: list[Cell]) -> float:
    """Seconds until a sequence holds the cells; nothing of them is in memory before."""
    engine.forget()
    sequence = engine.acquire()
    began = time.perf_counter()
    engine.load_prefix(sequence, cells, durable=True)
    seconds = time.perf_counter() - began
    sequence.close()
    return seconds


if __name__ == "__main__":
    main()
