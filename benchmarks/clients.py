"""Eight clients at once against `sgft-edge serve` and llama.cpp's `llama-server`: time, first token, memory.

usage: python -m benchmarks.clients MODEL PROBLEMS.jsonl --server PATH/TO/llama-server [--questions 64] [--repeats 3]

Both servers run the same file with as many slots and threads, read the token ids of strategy `cot`'s prompts, and
decode greedily to the end or to the limit. Each client streams one question after another. The servers take turns, and
the one whose turn it is not sleeps; no question is asked twice, as both keep what they have read. Before all that, one
client asks alone, for the time to the first token; last, our server's memory is read after 50 and after 500 requests.
How to compile llama-server: see `benchmarks/server.py`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import click
import openai

from benchmarks.server import CONTEXT, serving
from sgft_edge import Question
from sgft_edge.host.machine import physical_cores
from sgft_edge.llama.model import Model
from sgft_edge.llama.tokens import prompt_tokens, template_of
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.problems import read_problems
from sgft_edge.store.places import resolve

_ALONE = 8  # questions of one client, and for the warm-up

Stream = Callable[[openai.AsyncOpenAI, int], AsyncIterator[int]]


@dataclass(frozen=True)
class Load:
    """Seconds in all, tokens decoded, and each request's seconds to its first token."""

    seconds: float
    tokens: int
    first: list[float]


async def load(url: str, ask: Stream, questions: range, clients: int) -> Load:
    """Let clients ask all questions, which are named by their places."""
    first: list[float] = []
    waiting = iter(questions)
    tokens = 0
    once = {"Connection": "close"}  # llama-server ends a kept connection at times
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=3600, default_headers=once) as client:

        async def work() -> None:
            nonlocal tokens
            for index in waiting:
                began = time.perf_counter()
                seen = False
                async for count in ask(client, index):
                    if not seen:
                        first.append(time.perf_counter() - began)
                        seen = True
                    tokens += count

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(clients)))
        return Load(time.perf_counter() - began, tokens, first)


@contextmanager
def our_server(model: str, slots: int, threads: int) -> Iterator[str]:
    """`sgft-edge serve` while it runs."""
    command = [sys.executable, "-m", "sgft_edge.cli", "serve", "--guide", model, "--adapter", "none", "--port", "0"]
    options = ["--parallel", str(slots), "--threads", str(threads), "--context", str(CONTEXT)]
    with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            yield line.split(" at ")[1].split("/ ")[0]
        finally:
            process.terminate()


def memory_mb(url: str) -> float:
    """Our server's resident memory in MB of 10**6 bytes."""
    with urllib.request.urlopen(f"{url}/health") as reply:
        return float(json.load(reply)["memory_mb"])


@click.command()
@click.argument("model")
@click.argument("problems", type=click.Path(exists=True, path_type=Path))
@click.option("--server", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--questions", "count", default=64, show_default=True)
@click.option("--clients", default=8, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--max-tokens", default=128, show_default=True)
@click.option("--threads", default=physical_cores(), show_default=True)
@click.option("--requests", default=500, show_default=True, help="For the memory, of 8 tokens each; 0 leaves it out.")
def main(
    model: str,
    problems: Path,
    server: Path,
    count: int,
    clients: int,
    repeats: int,
    max_tokens: int,
    threads: int,
    requests: int,
) -> None:
    """Print each run, the medians and their ratios."""
    needed = 2 * _ALONE + repeats * count
    questions = [problem.asked for problem in islice(read_problems(problems), needed)]
    if len(questions) < needed:
        raise click.UsageError(f"{problems}: expected {needed} problems, found {len(questions)}: lower --questions")
    asked = _prompt_ids(resolve(model), questions)

    async def theirs(client: openai.AsyncOpenAI, index: int) -> AsyncIterator[int]:
        stream = await client.completions.create(
            model="m", prompt=asked[index], max_tokens=max_tokens, temperature=0, stream=True
        )
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].text:
                yield 1

    def ours(limit: int) -> Stream:
        async def ask(client: openai.AsyncOpenAI, index: int) -> AsyncIterator[int]:
            body: dict[str, Any] = {"max_tokens": limit, "extra_body": {"strategy": "cot"}}
            message = {"role": "user", "content": questions[index % len(questions)].text}
            stream = await client.chat.completions.create(model=model, messages=[message], stream=True, **body)
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield 1

        return ask

    def both(asked: range, clients: int) -> tuple[Load, Load]:
        ends = ((our_url, ours(max_tokens)), (their_url, theirs))
        turns = ends if asked.start // count % 2 == 0 else ends[::-1]
        loads = {url: asyncio.run(load(url, ask, asked, clients)) for url, ask in turns}
        return loads[our_url], loads[their_url]

    with our_server(model, clients, threads) as our_url, serving(server, resolve(model), clients, threads) as their_url:
        both(range(_ALONE), clients)  # weights into memory
        alone = both(range(_ALONE, 2 * _ALONE), 1)
        runs = []
        for began in range(2 * _ALONE, needed, count):
            mine, other = both(range(began, began + count), clients)
            runs.append((mine, other))
            print(f"ours {mine.seconds:.1f} s, {mine.tokens} chunks; server {other.seconds:.1f} s, {other.tokens}")
        ratio = median(mine.seconds / other.seconds for mine, other in runs)
        first = [median(median(run[side].first) for run in runs) for side in (0, 1)]
        print(f"{count} questions, {clients} clients: {ratio:.2f}x the server's time")
        print(f"first token alone: {median(alone[0].first):.3f} s, server {median(alone[1].first):.3f} s")
        print(f"first token under load: {first[0]:.3f} s, server {first[1]:.3f} s")
        if requests:
            asyncio.run(load(our_url, ours(8), range(50), clients))
            after_50 = memory_mb(our_url)
            asyncio.run(load(our_url, ours(8), range(50, requests), clients))
            after = memory_mb(our_url)
            print(
                f"memory after 50 requests {after_50:.0f} MB, after {requests} {after:.0f} MB: {after / after_50:.3f}x"
            )


def _prompt_ids(path: Path, questions: Sequence[Question]) -> list[list[int]]:
    model = Model(path)
    try:
        template = template_of(model)
        return [prompt_tokens(model, template, prompts.cot(question))[0] for question in questions]
    finally:
        model.close()


if __name__ == "__main__":
    main()
