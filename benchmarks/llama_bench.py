"""The engine against llama.cpp's own `llama-bench` on one file: reading a prompt, and decoding after one.

usage: python -m benchmarks.llama_bench MODEL --program PATH/TO/llama-bench [--repeats 5] [--threads N]

Both read 256 tokens into an empty cache and decode 64 at that depth, with the same batch, threads and KV types, in
processes of their own that take turns. The engine samples and writes text besides. How to compile llama.cpp's tools:
see `benchmarks/server.py`.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from statistics import median

import click

from sgft_edge.host.machine import physical_cores
from sgft_edge.measuring.compare import counting_prompt
from sgft_edge.measuring.measure import Job, measure_apart
from sgft_edge.store.places import resolve

CONTEXT = 2048
BATCH = 512


def theirs(program: Path, model: Path, prompt: int, decoded: int, threads: int) -> tuple[float, float]:
    """Tokens a second: the prompt, and the tokens decoded after it."""
    options = ["-m", model, "-t", threads, "-b", BATCH, "-ub", BATCH, "-r", 1, "-o", "json", "-ngl", 0, "-fa", "auto"]
    rates = []
    for what in (("-p", prompt, "-n", 0), ("-p", 0, "-n", decoded, "-d", prompt)):
        command = [str(part) for part in (program, *options, *what)]
        (found,) = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        rates.append(float(found["avg_ts"]))
    return rates[0], rates[1]


@click.command()
@click.argument("model")
@click.option("--program", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--prompt-tokens", default=256, show_default=True)
@click.option("--decode-tokens", default=64, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--threads", default=physical_cores(), show_default=True)
def main(model: str, program: Path, prompt_tokens: int, decode_tokens: int, repeats: int, threads: int) -> None:
    """Print each run, and the medians of the ratios."""
    path = resolve(model)
    prompt, context = counting_prompt(path, prompt_tokens, CONTEXT)
    job = Job(
        contender="engine",
        model=str(path),
        prompt=prompt,
        decode_tokens=decode_tokens,
        context=context,
        threads=threads,
        device="cpu",
    )
    ratios = []
    for repeat in range(repeats):
        for side in ("ours", "theirs") if repeat % 2 == 0 else ("theirs", "ours"):
            if side == "ours":
                ours = measure_apart(job)
            else:
                prefill, decode = theirs(program, path, prompt_tokens, decode_tokens, threads)
        ratios.append((ours.prefill_rate / prefill, ours.decode_rate / decode))
        print(f"prefill {ours.prefill_rate:.1f} / {prefill:.1f}, decode {ours.decode_rate:.1f} / {decode:.1f} tokens/s")
    prefill, decode = (median(side) for side in zip(*ratios, strict=True))
    print(f"{path.name}, {threads} threads: prefill {prefill:.2f}x, decode {decode:.2f}x llama-bench's")


if __name__ == "__main__":
    main()
