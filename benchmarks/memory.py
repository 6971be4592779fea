"""Peak memory of guide and answerer on one base against one role alone, and a run under a limit of 512 MiB.

usage: python -m benchmarks.memory MODEL [ADAPTER]

The answerer is the base, the guide the base with ADAPTER, or with a random F16 LoRA of rank 16 for every linear layer:
its words are nonsense, its memory is real. Each case is measured in a process of its own (VmHWM). The limit is
RLIMIT_AS: all address space counts, the mapped model file and the libraries included; so the allocator is kept from
reserving 64 MB of it for each thread, and numpy from starting threads that nothing here uses.
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


def child(model: str, adapter: str, strategy: str, limit_mb: int) -> None:
    """Solve one question and print the peak memory in MB."""
    if limit_mb:
        resource.setrlimit(resource.RLIMIT_AS, (limit_mb * MB, limit_mb * MB))
    from sgft_edge import Settings, Solver
    from sgft_edge.machine import peak_bytes

    settings = Settings(strategy, max_tokens=32)
    with Solver.open(model, adapter=adapter, answerer_adapter="none", settings=settings, threads=2) as solver:
        text = solver.solve(QUESTION).text
    print(peak_bytes() / MB, repr(text))


def peak_mb(model: str, adapter: str, strategy: str, limit_mb: int = 0) -> tuple[float, str]:
    """The peak memory of a child process in MB, and the answer that it gave."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", model, adapter, strategy, str(limit_mb)]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    peak, _, text = done.stdout.strip().partition(" ")
    return float(peak), text


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
        one, _ = peak_mb(model, "none", "cot")
        both, _ = peak_mb(model, adapter, "exact")
        size = Path(adapter).stat().st_size / MB
        print(
            f"one role {one:.0f} MB, both roles {both:.0f} MB with an adapter of {size:.0f} MB, ratio {both / one:.2f}"
        )
        limited, text = peak_mb(model, adapter, "exact", LIMIT_MB)
        print(f"both roles under RLIMIT_AS {LIMIT_MB} MB (512 MiB): peak {limited:.0f} MB, answered {text}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main()
