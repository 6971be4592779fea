"""Self-training by execution: `python -m train.self_train --config CONFIG --adapter RUN --out FOLDER`.

The tuned model samples solutions of the training problems, and of others that are at hand, in the runtime. Those whose
exact execution reaches the reference answer, and whose expressions nobody wrote before, join the teacher's data; then
the adapter is trained anew from the base. (Rejection-sampling fine-tuning, https://arxiv.org/abs/2308.01825; STaR,
https://arxiv.org/abs/2203.14465)

Each round has a folder: the exported adapter that sampled, all samples, the data, the new adapter, and round.json with
what came of it. A run that was interrupted goes on.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypeVar

import click

from convert import export_gguf
from sgft_edge.answers.extraction import is_correct
from sgft_edge.errors import InputError, SgftError
from sgft_edge.evaluation.testsets import find_problems
from sgft_edge.host.files import write_atomically
from sgft_edge.host.journal import Journal
from sgft_edge.reasoning.settings import Sampling, Settings
from sgft_edge.reasoning.solution import Solution
from sgft_edge.solver import Solver
from sgft_edge.terminal import words
from sgft_edge.terminal.progress import progress
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import remark, say
from train.check_sg import Row, copies, faults_of, read_sg
from train.mix import read_mix
from train.settings import TrainSettings, read_settings
from train.sgft import train

T = TypeVar("T")
GREEDY = 0  # the seed that stands for no sampling


@dataclass(frozen=True)
class Sampler:
    """How solutions are sampled: `samples` for each problem, of which at most `keep` are kept."""

    samples: int = 4
    keep: int = 4
    temperature: float = 0.7
    parallel: int = 16
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "keep", "parallel"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature: expected more than 0, found {self.temperature}")


def self_train(
    settings: TrainSettings, adapter: Path, out: Path, rounds: int, sampler: Sampler, others: str | None = None
) -> Path:
    """Run the rounds, or go on with them; returns the last adapter's folder.

    `others` are problems with answers and without guidance, a JSONL file or a set by name. Raises `SgftError`.
    """
    given, held_out = read_mix(settings).rows, read_sg(Path(settings.dev))
    given = [dataclasses.replace(row, line=line) for line, row in enumerate(given, start=1)]  # of one file, or several
    problems, dev = ([row for row in rows if row.answer and row.expressions] for rows in (given, held_out))
    if others:
        problems += unguided(others, given, held_out)
    for number in range(1, rounds + 1):
        folder = out / f"round-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        seeds = range(1, sampler.samples + 1)
        samples = _solved(settings, adapter, problems, sampler, seeds, folder / "samples.jsonl")
        kept = choose(problems, samples, sampler.keep)
        own = folder / "own.jsonl"
        write_atomically(own, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
        data = (*settings.data, str(own)) if kept else settings.data
        adapter = apart(train, dataclasses.replace(settings, data=data, out=str(folder / "adapter")))
        judged = _solved(settings, adapter, dev, sampler, [GREEDY], folder / "dev.jsonl")
        found = {
            "round": number,
            "sampled": len(samples),
            "correct": sum(row["correct"] for row in samples),
            "kept": len(kept),
            "problems": len({row["line"] for row in samples if row["correct"]}),
            "dev_correct": sum(row["correct"] for row in judged),
            "dev_problems": len(judged),
        }
        write_atomically(folder / "round.json", json.dumps(found, indent=1) + "\n")
        remark(json.dumps(found))
    return adapter


def unguided(source: str, given: Sequence[Row], held_out: Sequence[Row]) -> list[Row]:
    """Numeric problems as rows without guidance, none of which reads like one that is there, or is held out.

    Their line numbers go on after those of `given`.
    """
    known = [(row.place, row.question.text) for row in (*given, *held_out)]
    found = [problem for problem in find_problems(source) if problem.answer and not problem.asked.choices]
    asked = [(str(problem.number), problem.asked.text) for problem in found]
    left_out = {fault.place for fault in copies(asked, known)}
    last = max(row.line for row in given)
    return [
        Row(Path(source).name, last + problem.number, problem.id, problem.asked, "", problem.answer, None)
        for problem in found
        if str(problem.number) not in left_out
    ]


def choose(problems: Sequence[Row], samples: Sequence[dict[str, Any]], keep: int) -> list[dict[str, Any]]:
    """Rows of data from the samples that are correct, without fault, and computed as nobody did before them."""
    by_line = {row.line: row for row in problems}
    known = {(row.line, _way(row.expressions or ())) for row in problems}
    counts: Counter[int] = Counter()
    kept = []
    for sample in samples:
        line = sample["line"]
        way = (line, _way(sample["expressions"]))
        if not sample["correct"] or way in known or counts[line] == keep:
            continue
        row = dataclasses.replace(by_line[line], guidance=sample["guidance"], expressions=tuple(sample["expressions"]))
        if any(faults_of(row)):
            continue
        known.add(way)
        counts[line] += 1
        kept.append(
            {
                "id": f"{row.id}-own-{counts[line]}",
                "question": row.question.text,
                "guidance": row.guidance,
                "expressions": sample["expressions"],
                "answer": row.answer,
            }
        )
    return kept


def _way(expressions: Sequence[str | None]) -> tuple[str, ...]:
    """What makes two solutions one: the same expressions, however they are spaced."""
    return tuple("".join(part.split()) for part in expressions if part)


def _solved(
    settings: TrainSettings, adapter: Path, rows: Sequence[Row], sampler: Sampler, seeds: Sequence[int], path: Path
) -> list[dict[str, Any]]:
    """Solutions of all rows, one for each seed, by the exported adapter: programs, if it writes nothing else."""
    strategy = "program" if settings.role == "program" else "exact"
    with Journal(path) as journal:
        done = {(row["line"], row["seed"]) for row in journal.rows}
        todo = {seed: [row for row in rows if (row.line, seed) not in done] for seed in seeds}
        if any(todo.values()):
            exported = _export(adapter, path.with_name(f"export-for-{path.stem}"))
            guides, answers = ("none", exported) if strategy == "program" else (exported, "auto")
            solver = Solver.open(
                settings.base,
                adapter=guides,
                answerer_adapter=answers,
                parallel=sampler.parallel,
                threads=sampler.threads,
            )
            with solver, progress(path.stem, sum(map(len, todo.values()))) as advance:
                for seed, part in todo.items():
                    for row in _sampled(solver, part, strategy, seed, sampler.temperature if seed != GREEDY else 0.0):
                        journal.write(row)
                        journal.rows.append(row)
                        advance()
        return sorted(journal.rows, key=lambda row: (row["line"], row["seed"]))


def _sampled(
    solver: Solver, rows: Sequence[Row], strategy: str, seed: int, temperature: float
) -> Iterator[dict[str, Any]]:
    sampling = Sampling(temperature, seed=seed)
    settings = Settings(strategy, sampling=sampling, max_tokens=1, reproducible=False)  # what falls back is lost
    for index, outcome in solver.solve_each((row.question for row in rows), settings):
        row = rows[index]
        solved = isinstance(outcome, Solution) and outcome.solved_by == strategy
        steps = outcome.steps if isinstance(outcome, Solution) and solved else ()
        yield {
            "line": row.line,
            "seed": seed,
            "question": row.question.text,
            "guidance": "\n".join(f"{number}. {step.text}" for number, step in enumerate(steps, start=1)),
            "expressions": [step.expression for step in steps],
            "correct": isinstance(outcome, Solution) and solved and is_correct(outcome.answer, str(row.answer)),
            "decoded": outcome.decoded if isinstance(outcome, Solution) else 0,
            "error": str(outcome) if isinstance(outcome, SgftError) else None,
        }


def _export(adapter: Path, folder: Path) -> Path:
    """The adapter as GGUF, proven."""
    command = [str(adapter), "--out", str(folder), "--format", "adapter"]
    if not folder.is_dir() and apart(export_gguf.main, command) != 0:
        raise SgftError(f"{adapter}: it could not be exported")
    return next(folder.glob("*.gguf"))


def apart(work: Callable[..., T], *arguments: Any) -> T:
    """What `work` returns in a process of its own, which ends where this one is killed.

    OpenMP counts the threads of all its pools: once PyTorch has left some here, llama.cpp's would sleep at every
    barrier, and sampling takes up to three times as long.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), _end_with_parent) as pool:
        return pool.submit(work, *arguments).result()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@click.command("self_train", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=words.path, required=True, metavar="FILE", help="Of the training.")
@click.option(
    "--base", type=words.models, metavar="MODEL", help="A known model's name or a GGUF file.  [default: the config's]"
)
@click.option("--adapter", type=words.path, required=True, metavar="DIR", help="To begin with.")
@click.option("--out", type=words.path, required=True, metavar="DIR")
@click.option(
    "--data", multiple=True, metavar="FILE", help="Problems with a teacher's guidance.  [default: the config's]"
)
@click.option("--problems", metavar="SET", help="More to sample: a JSONL file, or a set by name such as gsm8k:train.")
@click.option("--epochs", type=float, help="Of each round.  [default: the config's]")
@click.option("--dtype", help="[default: the config's]")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--samples", default=Sampler.samples, show_default=True, metavar="K", help="For each problem.")
@click.option("--keep", default=Sampler.keep, show_default=True, metavar="N", help="At most, for each problem.")
@click.option("--temperature", default=Sampler.temperature, show_default=True, metavar="T")
@click.option("--parallel", default=Sampler.parallel, show_default=True, metavar="N", help="Problems at once.")
@click.option("--threads", type=int, metavar="N", help="[default: the physical cores]")
def command(config: Path, adapter: Path, out: Path, rounds: int, problems: str | None, **given: Any) -> None:
    """Let a tuned model add to its own training data what execution proves right, and train it anew."""
    overrides = {name: given.pop(name) for name in ("base", "data", "epochs", "dtype")}
    settings = read_settings(config, overrides | {"out": str(out)})
    say(self_train(settings, adapter, out, rounds, Sampler(**given), problems))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv, "self_train")


if __name__ == "__main__":
    sys.exit(main())
