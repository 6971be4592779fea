"""From the start of a process to the first token on the terminal, against llama.cpp's `llama-completion`.

usage: python -m benchmarks.first_token MODEL --program PATH/TO/llama-completion [--repeats 5] [--threads N]

Both read the same prompt, strategy `cot`'s for one question, from warm files and write their answer to a pipe, in turn.
`again` is the runtime once it has kept the prompt's fixed prefix on disk, `exact` its first line of a guided answer.
How to compile llama.cpp's tools: see `benchmarks/server.py`.
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

from sgft_edge import Question
from sgft_edge.host.machine import physical_cores
from sgft_edge.llama.model import Model
from sgft_edge.llama.tokens import template_of
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.prompts import Prompt
from sgft_edge.store.places import resolve

QUESTION = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?"


@click.command()
@click.argument("model")
@click.option("--program", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--threads", default=physical_cores(), show_default=True)
def main(model: str, program: Path, repeats: int, threads: int) -> None:
    """Print the medians, and how much later than the tool's the first token comes."""
    path = resolve(model)
    ask = [sys.executable, "-m", "sgft_edge.solve", "--guide", model, "--threads", str(threads), QUESTION, "--strategy"]
    options = ["-m", path, "-p", _rendered(path, prompts.cot(Question(QUESTION))), "-t", threads, "-n", 32]
    quiet = ["-no-cnv", "--no-display-prompt", "--no-warmup", "--temp", 0, "-c", 2048]
    tool = [str(part) for part in (program, *options, *quiet)]
    found: dict[str, list[float]] = {"llama-completion": [], "first": [], "again": [], "exact": []}
    for repeat in range(repeats + 1):
        with tempfile.TemporaryDirectory() as cache:
            emptied = {**os.environ, "SGFT_EDGE_CACHE": cache}
            first_output(
                [*ask, "direct"], emptied
            )  # the file's digest is kept there as well, other prompts' prefixes too
            runs = {
                "llama-completion": first_output(tool, emptied),
                "first": first_output([*ask, "cot"], emptied | {"SGFT_EDGE_PREFIX_MB": "0"}),
                "again": first_output([*ask, "cot"], emptied),
                "exact": first_output([*ask, "exact"], emptied),
            }
        if repeat:  # the first round brings files into memory
            for name, seconds in runs.items():
                found[name].append(seconds)
    theirs = median(found["llama-completion"])
    for name, times in found.items():
        print(f"{name}: {median(times):.2f} s, {median(times) - theirs:+.2f} s")


def first_output(command: list[str], environment: dict[str, str]) -> float:
    """Seconds until the first character that is no blank; the process is ended then."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        while (read := os.read(process.stdout.fileno(), 64)) and not read.strip():
            pass
        seconds = time.perf_counter() - began
        process.kill()
    if not read:
        raise click.ClickException(f"expected output from {command[0]}, found none")
    return seconds


def _rendered(path: Path, prompt: Prompt) -> str:
    model = Model(path, vocab_only=True)
    try:
        return "".join(part.text for part in template_of(model).render(prompt.messages, prompt.answer_prefix))
    finally:
        model.close()


if __name__ == "__main__":
    main()
