"""Peak memory of guide and answerer on one base against one role alone, and estimates beside peaks.

usage: python -m benchmarks.memory MODEL [--repeats 5]

One role is the base alone, strategy `cot`; two are `exact` with the adapters that come with MODEL. Each case is
measured in processes of its own (VmHWM), in turn. The limit of 512 MiB is set where both roles take less. It is
RLIMIT_AS: all address space counts, the mapped model file and the libraries included; so the allocator is kept from
reserving 64 MB of it for each thread, and numpy from starting threads that nothing here uses.

Then `exact` answers as many questions at once as there is room for, short ones and one that fills most of its window:
what `--max-memory` estimates beside the peak.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from statistics import median

import click

from sgft_edge.host.machine import MB
from sgft_edge.store.places import resolve

QUESTION = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?"
LIMIT_MB = 512 * 1024 * 1024 // MB
SHAPES = ((1, 512, 1), (1, 2048, 1), (1, 2048, 50), (1, 8192, 1), (4, 1024, 1), (8, 512, 1), (8, 2048, 1))
"""Questions at once, tokens for each, and how often each says what it says."""


def child(model: str, adapters: str, strategy: str, limit_mb: int, parallel: int, context: int, times: int) -> None:
    """Solve questions and print the peak memory and its estimate, in MB."""
    if limit_mb:
        resource.setrlimit(resource.RLIMIT_AS, (limit_mb * MB, limit_mb * MB))
    from sgft_edge import Settings, Solution, Solver
    from sgft_edge.host.machine import peak_bytes

    with Solver.open(
        model,
        adapter=adapters,
        answerer_adapter=adapters,
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
    model: str, adapters: str, strategy: str, limit_mb: int = 0, parallel: int = 1, context: int = 2048, times: int = 1
) -> tuple[float, float, str]:
    """The peak memory of a child process in MB, its estimate, and the answer that it gave."""
    numbers = [str(number) for number in (limit_mb, parallel, context, times)]
    command = [sys.executable, "-m", "benchmarks.memory", "--child", model, adapters, strategy, *numbers]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    peak, need, text = done.stdout.strip().split(" ", 2)
    return float(peak), float(need), text


@click.command()
@click.argument("model")
@click.option("--repeats", default=5, show_default=True)
def main(model: str, repeats: int) -> None:
    """Print the peaks, their ratio, and whether the question was answered under the limit."""
    model = str(resolve(model))
    pairs = [(peak_mb(model, "none", "cot")[0], peak_mb(model, "auto", "exact")[0]) for _ in range(repeats)]
    one, both = map(median, zip(*pairs, strict=True))
    print(f"one role {one:.0f} MB, both roles {both:.0f} MB, ratio {median(b / a for a, b in pairs):.2f}")
    if both < LIMIT_MB:
        limited, _, text = peak_mb(model, "auto", "exact", LIMIT_MB)
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
