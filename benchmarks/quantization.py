"""What each quantization type costs and how fast it runs: a table from two exports of one model.

usage: python -m benchmarks.quantization PLAIN WITH_IMATRIX [--repeats 3] [--threads N]

PLAIN and WITH_IMATRIX are folders that `convert/export_gguf.py` wrote, with the same types and the same data; what the
types cost is read from their cards. Speed is measured here, on the files with the matrix: 256 prompt tokens and 64
decoded ones in the engine, each run in a process of its own, the types in turn, medians.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import click

from sgft_edge.host.machine import physical_cores
from sgft_edge.measuring.compare import counting_prompt
from sgft_edge.measuring.measure import Job, Measurement, measure_apart

PROMPT, DECODE, CONTEXT = 256, 64, 2048


def measured(file: Path, threads: int) -> Measurement:
    """One run of the engine on a text that counts."""
    prompt, context = counting_prompt(file, PROMPT, CONTEXT)
    job = Job(
        contender="engine",
        model=str(file),
        prompt=prompt,
        decode_tokens=DECODE,
        context=context,
        threads=threads,
        device="cpu",
    )
    return measure_apart(job)


def card(folder: Path) -> dict[str, Any]:
    """What an export's card says of its quantized files, by type."""
    proof = json.loads((folder / "card.json").read_text(encoding="utf-8"))["proof"]
    return {"reference": proof["reference_perplexity"], **{row["type"]: row for row in proof["quantized"]}}


@click.command()
@click.argument("plain", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("with_imatrix", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--repeats", default=3, show_default=True)
@click.option("--threads", type=int, help="[default: the physical cores]")
def main(plain: Path, with_imatrix: Path, repeats: int, threads: int | None) -> None:
    """Print the table as Markdown."""
    one, other = card(plain), card(with_imatrix)
    print(f"Perplexity of the unquantized model: {one.pop('reference'):.3f}\n")
    files = {name: with_imatrix / row["file"] for name, row in other.items() if name in one}
    runs: dict[str, list[Measurement]] = {name: [] for name in files}
    for _ in range(repeats):
        for name, file in files.items():
            runs[name].append(measured(file, threads or physical_cores()))
    titles = ["type", "MB", "bits a weight", "perplexity", "KLD", "top-1", "with imatrix: perplexity", "KLD", "top-1"]
    titles += ["decode, tokens/s", "prefill, tokens/s"]
    print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for name in files:
        a, b = one[name], other[name]
        figures = [f"{row['perplexity']:.3f} | {row['kld']:.4f} | {row['agreement']:.3f}" for row in (a, b)]
        decode = median(run.decode_rate for run in runs[name])
        prefill = median(run.prefill_rate for run in runs[name])
        print(
            f"| {name} | {b['bytes'] / 1e6:.0f} | {b['bits_per_weight']:.2f} | {figures[0]} | {figures[1]} "
            f"| {decode:.1f} | {prefill:.0f} |"
        )


if __name__ == "__main__":
    main()
