"""Our writer beside llama.cpp's `convert_hf_to_gguf.py` on the same folder: wall time and peak memory.

usage: python -m benchmarks.conversion MODEL.gguf --llama-cpp SOURCE [--repeats 5]

MODEL is unpacked into a folder of bfloat16 safetensors first (`convert.unpack`); SOURCE is a llama.cpp source tree,
such as `vendor/llama.cpp` of llama-cpp-python's source distribution. Both write F16, in processes of their own, in
turn.
Ours is the whole command without its proof: digests, card, and waiting for the disk included, which theirs does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click

from sgft_edge.host.machine import MB


def measured(command: list[str]) -> tuple[float, float]:
    """Wall-clock seconds and peak resident MB of one run."""
    os.sync()  # what the run before left in memory is not this one's to write
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024 / MB


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--llama-cpp", "source", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--repeats", default=5, show_default=True)
def main(model: Path, source: Path, repeats: int) -> None:
    """Print the medians and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = work / "model"
        unpack = [sys.executable, "-m", "convert.unpack", str(model), "--out", str(folder), "--dtype", "bfloat16"]
        subprocess.run(unpack, check=True, capture_output=True)
        export = str(Path(__file__).parent.parent / "convert" / "export_gguf.py")
        ours = [sys.executable, export, str(folder), "--out", str(work / "ours"), "--force", "--no-verify"]
        ours += ["--quant", "F16", "--unquantized", "F16", "--imatrix", "none"]
        theirs = [sys.executable, str(source / "convert_hf_to_gguf.py"), str(folder), "--outtype", "f16"]
        theirs += ["--outfile", str(work / "theirs.gguf")]
        measured(ours), measured(theirs)  # the first run fills the page cache and writes bytecode
        runs = [(*measured(ours), *measured(theirs)) for _ in range(repeats)]
        seconds, peak, their_seconds, their_peak = (median(column) for column in zip(*runs, strict=True))
    print(f"{model.name}: wall time {seconds:.2f} s, {their_seconds:.2f} s, ratio {seconds / their_seconds:.2f}")
    print(f"{model.name}: peak memory {peak:.0f} MB, {their_peak:.0f} MB, ratio {peak / their_peak:.2f}")


if __name__ == "__main__":
    main()
