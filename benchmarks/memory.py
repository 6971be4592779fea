"""Peak memory of guide and answerer on one base against one role alone, and estimates beside peaks.

usage: python -m benchmarks.memory MODEL [ADAPTER]

The answerer is the base, the guide the base with ADAPTER, or with a random F16 LoRA of rank 16 for every linear layer:
its words are nonsense, its memory is real. Each case is measured in a process of its own (VmHWM). The limit of 512 MiB
is set where both roles take less. It is RLIMIT_AS: all address space counts, the mapped model file and the libraries
included; so the allocator is kept from reserving 64 MB of it for each thread, and numpy from starting threads that
nothing here uses.

Then `exact` answers as many questions at once as there is room for, short ones and one that fills most of its window,
with the adapters that come with MODEL: what `--max-memory` estimates beside the peak.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import click

QUESTION = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?"
MB = 1_000_000
LIMIT_MB = 512 * 1024 * 1024 // MB
SHAPES = ((1, 512, 1), (1, 2048, 1), (1, 2048, 50), (1, 8192, 1), (4, 1024, 1), (8, 512, 1), (8, 2048, 1))
"""Questions at once, tokens for each, and how often each says what it says."""


def child(model: str, adapter: str, strategy: str, limit_mb: int, parallel: int, context: int, times: int) -> None:
    """Solve questions and print the peak memory and its estimate, in MB."""
    if limit_mb:
        resource.setrlimit(resource.RLIMIT_AS, (limit_mb * MB, limit_mb * MB))
    from sgft_edge import Settings, Solution, Solver
    from sgft_edge.machine import peak_bytes

    own = "auto" if adapter == "auto" else "none"
    with Solver.open(
        model,
        adapter=adapter,
        answerer_adapter=own,
        settings=Settings(strategy, max_tokens=32),
        context=context,
        parallel=parallel,
        threads=2,
    ) as solver:
        outcomes = list(solver.solve_many([" ".join([QUESTION] * times)] * parallel))
        need = solver.cast.need.total
    text = outcomes[0].text if isinstance(outcomes[0], Solution) else outcomes[0]
    print(peak_bytes() / MB, need / MB, repr(text))


def peak_mb(
    model: str, adapter: str, strategy: str, limit_mb: int = 0, parallel: int = 1, context: int = 2048, times: int = 1
) -> tuple[float, float, str]:
    """The peak memory of a child process in MB, its estimate, and the answer that it gave."""
    numbers = [str(number) for number in (limit_mb, parallel, context, times)]
    command = [sys.executable, "-m", "benchmarks.memory", "--child", model, adapter, strategy, *numbers]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    peak, need, text = done.stdout.strip().split(" ", 2)
    return float(peak), float(need), text


@click.command()
@click.argument("model", type=click.Path(exists=True))
@click.argument("adapter", required=False)
def main(model: str, adapter: str | None) -> None:
    """Print the peaks, their ratio, and whether the question was answered under the limit."""
    with tempfile.TemporaryDirectory() as folder:
        if adapter is None:
            import numpy as np

            from tests.tiny import tiny_adapter

            adapter = str(tiny_adapter(Path(folder) / "random.gguf", Path(model), rank=16, dtype=np.float16))
        one, *_ = peak_mb(model, "none", "cot")
        both, *_ = peak_mb(model, adapter, "exact")
        size = Path(adapter).stat().st_size / MB
        print(
            f"one role {one:.0f} MB, both roles {both:.0f} MB with an adapter of {size:.0f} MB, ratio {both / one:.2f}"
        )
        if both < LIMIT_MB:
            limited, _, text = peak_mb(model, adapter, "exact", LIMIT_MB)
            print(f"both roles under RLIMIT_AS {LIMIT_MB} MB (512 MiB): peak {limited:.0f} MB, answered {text}")
    for parallel, context, times in SHAPES:
        peak, need, _ = peak_mb(model, "auto", "exact", 0, parallel, context, times)
        what = f"{parallel} x {context} tokens" + (f", a question {times} times over" if times > 1 else "")
        print(f"{what}: estimate {need:.0f} MB, peak {peak:.0f} MB, {need / peak - 1:+.1%}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:5], *map(int, sys.argv[5:]))
    else:
        main()
