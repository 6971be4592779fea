"""Many questions through `Solver` against llama.cpp's `llama-server`: same file, prompts, slots, threads and limits.

usage: python -m benchmarks.server MODEL PROBLEMS.jsonl --server PATH/TO/llama-server [--questions 100] [--repeats 3]

Both get the token ids of strategy `cot`'s prompts and decode greedily to the end or to the limit; the server is driven
by an asynchronous client that sends all requests at once. The two take turns, and the server sleeps while the solver
works; no question is asked twice, as both keep what they have read. The source package of llama-cpp-python carries the
source of the server:

    pip download llama-cpp-python --no-deps --no-binary llama-cpp-python && tar xf llama_cpp_python-*.tar.gz
    cd llama_cpp_python-*/vendor/llama.cpp
    cmake -B build -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF && cmake --build build --target llama-server -j 2
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from statistics import median

import click

from sgft_edge import Question, Settings, Solution, Solver
from sgft_edge.llama.tokens import prompt_tokens, template_of
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.problems import read_problems
from sgft_edge.store.places import resolve

CONTEXT = 2048  # tokens of one slot
Prompts = list[list[int]]


def ours(solver: Solver, questions: Sequence[Question]) -> tuple[float, int]:
    """Seconds, and tokens decoded."""
    began = time.perf_counter()
    solutions = [outcome for outcome in solver.solve_many(questions) if isinstance(outcome, Solution)]
    assert len(solutions) == len(questions)
    return time.perf_counter() - began, sum(solution.decoded for solution in solutions)


async def theirs(url: str, asked: Prompts, max_tokens: int) -> tuple[float, int]:
    """Seconds, and tokens decoded."""
    import openai

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=3600) as client:
        began = time.perf_counter()
        replies = await asyncio.gather(
            *(client.completions.create(model="m", prompt=ids, max_tokens=max_tokens, temperature=0) for ids in asked)
        )
        return time.perf_counter() - began, sum(reply.usage.completion_tokens for reply in replies if reply.usage)


@contextmanager
def serving(program: Path, model: Path, slots: int, threads: int) -> Iterator[str]:
    """The server's address while it runs."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    options = ["-m", model, "-np", slots, "-c", slots * CONTEXT, "-t", threads, "--port", port, "--no-webui"]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([str(part) for part in (program, *options)], stderr=subprocess.DEVNULL)
    try:
        while not _healthy(url):
            if process.poll() is not None:
                raise click.ClickException(f"{program} ended with status {process.returncode}")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health") as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


@click.command()
@click.argument("model")
@click.argument("problems", type=click.Path(exists=True, path_type=Path))
@click.option("--server", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--questions", "count", default=100, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--slots", default=8, show_default=True)
@click.option("--max-tokens", default=512, show_default=True)
@click.option("--threads", default=os.cpu_count(), show_default=True)
def main(
    model: str, problems: Path, server: Path, count: int, repeats: int, slots: int, max_tokens: int, threads: int
) -> None:
    """Print each run, the medians and their ratio."""
    needed = slots + repeats * count
    questions = [problem.asked for problem in islice(read_problems(problems), needed)]
    if len(questions) < needed:
        raise click.UsageError(f"{problems}: expected {needed} problems, found {len(questions)}: lower --questions")
    settings = Settings("cot", max_tokens=max_tokens)
    runs: list[tuple[float, float]] = []
    with (
        Solver.open(
            model, adapter="none", settings=settings, parallel=slots, context=CONTEXT, threads=threads
        ) as solver,
        serving(server, resolve(model), slots, threads) as url,
    ):
        native = solver.cast.answerer.engine.model  # type: ignore[attr-defined]
        template = template_of(native)
        asked = [prompt_tokens(native, template, prompts.cot(question))[0] for question in questions]
        for part in (slice(slots), *(slice(n, n + count) for n in range(slots, needed, count))):
            for turn in ("ours", "theirs") if len(runs) % 2 == 0 else ("theirs", "ours"):
                if turn == "ours":
                    seconds, tokens = ours(solver, questions[part])
                else:
                    their_seconds, their_tokens = asyncio.run(theirs(url, asked[part], max_tokens))
            runs.append((their_seconds / seconds, tokens / seconds / (their_tokens / their_seconds)))
            print(f"ours {seconds:.1f} s, {tokens} tokens; server {their_seconds:.1f} s, {their_tokens} tokens")
    del runs[0]  # the first few questions brought the weights into memory
    time_ratio, speed_ratio = (median(ratios) for ratios in zip(*runs, strict=True))
    print(f"{count} questions, {slots} slots: {time_ratio:.2f}x in time, {speed_ratio:.2f}x in tokens a second")


if __name__ == "__main__":
    main()
