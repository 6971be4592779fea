"""Peak memory of guide and answerer on one base against one role alone, and a run under a limit of 512 MB.

usage: python benchmarks/memory.py MODEL [ADAPTER]

Each role is measured in a process of its own (VmHWM). The limit is RLIMIT_AS: all address space counts, the mapped
model file and the libraries included.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import click

QUESTION = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?"
MB = 1_000_000


def child(model: str, adapter: str, strategy: str, limit_mb: int) -> None:
    """Solve one question and print the peak memory in MB."""
    if limit_mb:
        resource.setrlimit(resource.RLIMIT_AS, (limit_mb * MB, limit_mb * MB))
    from sgft_edge import Settings, Solver

    with Solver.open(model, adapter=adapter, settings=Settings(strategy, max_tokens=32), threads=2) as solver:
        text = solver.solve(QUESTION).text
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(peak * 1024 / MB, repr(text))


def peak_mb(model: str, adapter: str, strategy: str, limit_mb: int = 0) -> tuple[float, str]:
    """The peak memory of a child process in MB, and the answer that it gave."""
    command = [sys.executable, __file__, "--child", model, adapter, strategy, str(limit_mb)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, _, text = done.stdout.strip().partition(" ")
    return float(peak), text


@click.command()
@click.argument("model")
@click.argument("adapter", default="none")
def main(model: str, adapter: str) -> None:
    """Print the peaks, their ratio, and whether the question was answered under the limit."""
    one, _ = peak_mb(model, "none", "cot")
    both, _ = peak_mb(model, adapter, "exact")
    print(f"one role {one:.0f} MB, both roles {both:.0f} MB, ratio {both / one:.2f}")
    limited, text = peak_mb(model, adapter, "exact", 512)
    print(f"both roles under RLIMIT_AS 512 MB: peak {limited:.0f} MB, answered {text}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        main()
