"""How long `python -m sgft_edge.solve --help` takes against `python -c "import click, rich"`, interleaved.

usage: python benchmarks/startup.py [REPEATS]
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

HELP = [sys.executable, "-m", "sgft_edge.solve", "--help"]
IMPORTS = [sys.executable, "-c", "import click, rich"]


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of one run."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def main(repeats: int = 15) -> int:
    """Print the medians and their ratio."""
    seconds(HELP), seconds(IMPORTS)  # the first run writes bytecode
    pairs = [(seconds(HELP), seconds(IMPORTS)) for _ in range(repeats)]
    help_, imports = (median(column) for column in zip(*pairs, strict=True))
    print(f"--help {1000 * help_:.0f} ms, import click, rich {1000 * imports:.0f} ms, ratio {help_ / imports:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
