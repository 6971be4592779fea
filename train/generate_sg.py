"""Make solution guidance data: `python -m train.generate_sg PROBLEMS.jsonl --out sg.jsonl --teacher TEACHER`.

A teacher writes a guidance for each problem. It is kept if `check_sg` finds no fault in it and, with --answerer, a
model that follows it reaches the reference answer: a number by strategy `exact`, whose expressions are kept as well,
a choice by a free answer (strategy `sg`). Another one is asked for up to --tries times. Without --answerer the check
alone decides.

OUT.journal, beside the output, gets every answer as soon as it is there, so that none is paid for twice: a run that was
stopped, or has more problems, more tries or another answerer, goes on with the answers there are.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from sgft_edge.answers.extraction import extract_number, is_correct
from sgft_edge.errors import ContextOverflow, GuidanceError, InputError, SgftError
from sgft_edge.host.files import write_atomically
from sgft_edge.host.journal import Journal
from sgft_edge.reasoning.problems import read_rows
from sgft_edge.reasoning.question import Question, parse_choices
from sgft_edge.reasoning.settings import Settings
from sgft_edge.solver import Solver
from sgft_edge.terminal import words
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import remark, say
from sgft_edge.text.arithmetic import format_value
from sgft_edge.text.guidance import parse
from train.check_sg import Row, faults_of
from train.ledger import Ledger
from train.teacher import Answer, LocalTeacher, NoAnswer, RemoteTeacher, Teacher, identity

SEEDS = Path("train/data/solution_guidance.train.jsonl")
REMOTE = "openai:"
SHOW_SECONDS = 30.0  # between two lines of progress, at most


@dataclass(frozen=True)
class Problem:
    """A row that has no guidance yet; `key` is what the ledger knows it by."""

    row: Row
    dataset: str | None
    key: str


@dataclass
class Outcome:
    """What came of a problem: the row that is kept, the faults of each answer that is not, or why there is no more."""

    problem: Problem
    kept: Row | None = None
    faults: list[set[str]] = field(default_factory=list)
    missing: str | None = None
    asked: bool = False


def read(path: Path) -> list[Problem]:
    """The problems of a file, each once. Raises `InputError` that names the line."""
    problems: dict[str, Problem] = {}
    rows = list(read_rows(path))
    for line, row in rows:
        try:
            problem = _problem(path.name, line, row)
        except InputError as e:
            raise InputError(f"{path}: line {line}: {e}") from e
        problems.setdefault(problem.key, problem)
    if not rows:
        raise InputError(f"{path}: expected problems, found none")
    if len(problems) < len(rows):
        remark(f"{len(rows) - len(problems)} of {len(rows)} problems are repeated: left out")
    return list(problems.values())


def _problem(file: str, line: int, row: dict[str, Any]) -> Problem:
    question = Question(row["question"], parse_choices(row.get("choices")))
    answer = str(row.get("answer"))
    if question.choices and answer not in question.choices:
        raise InputError(f"answer: expected one of {', '.join(question.choices)}, found {answer[:40]!r}")
    if not question.choices:
        if (number := extract_number(answer)) is None:
            raise InputError(f"answer: expected a number, found {answer[:40]!r}")
        answer = format_value(number)
    key = sha256(json.dumps([question.with_choices, answer]).encode()).hexdigest()[:16]
    return Problem(Row(file, line, str(row.get("id", line)), question, "", answer, None), row.get("dataset"), key)


class Generation:
    """Asks for guidances and judges them, for many threads."""

    def __init__(self, ledger: Ledger, tries: int, answerer: Solver | None) -> None:
        self._ledger, self._tries, self._answerer = ledger, tries, answerer
        self._name = identity(answerer.cast, "answerer") if answerer else ""

    def run(self, problems: Sequence[Problem], parallel: int) -> list[Outcome]:
        """What comes of each problem, in their order. When this is interrupted, answers under way are still entered."""
        show = _progress(len(problems), self._ledger)
        with ThreadPoolExecutor(parallel) as pool:
            jobs = [pool.submit(self.work, problem) for problem in problems]
            try:
                for job in as_completed(jobs):
                    show(job.result())
            except BaseException:
                self._ledger.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                remark("waiting for the answers under way, which may have to be paid for")
                raise
        return [job.result() for job in jobs]

    def work(self, problem: Problem) -> Outcome:
        """Try until an answer is kept. Raises `SgftError`."""
        outcome = Outcome(problem)
        for number in range(1, self._tries + 1):
            outcome.asked |= (problem.key, number) not in self._ledger.answers
            try:
                answer = self._ledger.answer(problem.key, number, problem.row.question)
            except NoAnswer as e:
                outcome.missing = str(e)
                break
            row, faults = self._judged(problem, number, answer)
            if not faults:
                outcome.kept = row
                break
            outcome.faults.append(faults)
        return outcome

    def _judged(self, problem: Problem, number: int, answer: Answer) -> tuple[Row, set[str]]:
        """The row that an answer makes, and the kinds of its faults; what an answerer made of it is not done again."""
        row, faults = _checked(problem.row, answer)
        verdict = self._ledger.verdicts.get((problem.key, number, self._name))
        if verdict is None:
            verdict = {"faults": sorted(faults)}
            if self._answerer and not faults:
                verdict = _carried_out(row, self._answerer)
            self._ledger.write(problem.key, number, answerer=self._name, **verdict)
        if expressions := verdict.get("expressions"):
            row = replace(row, expressions=tuple(expressions))
        return row, faults.union(verdict["faults"])


def _checked(row: Row, answer: Answer) -> tuple[Row, set[str]]:
    """The row with what the teacher wrote in the form of a guidance, and the kinds of its faults."""
    if answer.cut or not answer.text.strip():
        return row, {"cut off" if answer.cut else "empty"}
    try:
        row = replace(row, guidance=parse(answer.text).text)
    except GuidanceError:
        return row, {"form"}
    return row, {fault.kind for fault in faults_of(row)}


def _carried_out(row: Row, answerer: Solver) -> dict[str, Any]:
    """The verdict of an answerer that follows a guidance."""
    choices = row.question.choices
    settings = Settings("sg") if choices else Settings("exact", max_tokens=1)  # what falls back is lost
    try:
        solution = answerer.solve(replace(row.question, guidance=row.guidance), settings)
    except ContextOverflow as e:
        return {"faults": ["not followed"], "found": str(e)}
    if solution.solved_by != settings.strategy or not is_correct(solution.answer, str(row.answer), choices):
        return {"faults": ["not followed"], "found": solution.answer}
    return {"faults": [], "expressions": [step.expression for step in solution.steps]}  # a free answer has none


def _progress(total: int, ledger: Ledger) -> Callable[[Outcome], None]:
    """Shows how far it is, and what it still takes by the problems that were asked until now."""
    began = shown = time.monotonic()
    spent = ledger.cost
    done = kept = asked = 0

    def show(outcome: Outcome) -> None:
        nonlocal shown, done, kept, asked
        done, kept, asked = done + 1, kept + (outcome.kept is not None), asked + outcome.asked
        now = time.monotonic()
        if now - shown >= SHOW_SECONDS or done * 10 // total > (done - 1) * 10 // total:
            shown, left = now, (total - done) / max(asked, 1)
            minutes, cost = (now - began) * left / 60, (ledger.cost - spent) * left
            to_go = f"about {minutes:.1f} minutes" + (f" and {cost:.4f} more" if ledger.cost else "")
            remark(f"{done} of {total} problems, {kept} kept, {ledger}, {to_go} to go")

    return show


def _write(out: Path, outcomes: Sequence[Outcome]) -> None:
    """The kept rows as JSON lines. Raises `InputError`."""
    lines = []
    for outcome in outcomes:
        if (row := outcome.kept) is not None:
            fields: dict[str, Any] = {"id": row.id, "dataset": outcome.problem.dataset, "question": row.question.text}
            fields |= {"choices": dict(row.question.choices) or None, "guidance": row.guidance}
            fields |= {"expressions": row.expressions, "answer": row.answer}
            given = {name: value for name, value in fields.items() if value is not None}
            lines.append(json.dumps(given, ensure_ascii=False) + "\n")
    try:
        write_atomically(out, "".join(lines))
    except OSError as e:
        raise InputError(f"--out: cannot write {out}: {e.strerror or e}") from e


def _report(outcomes: Sequence[Outcome]) -> int:
    """Say what was kept and why not more; returns how many."""
    kept = sum(outcome.kept is not None for outcome in outcomes)
    faulty = [faults for outcome in outcomes for faults in outcome.faults]
    say(f"{kept} of {len(outcomes)} problems have a guidance ({kept / len(outcomes):.0%})")
    if answers := kept + len(faulty):
        say(f"{kept} of {answers} answers were kept ({kept / answers:.0%}){'; the others:' if faulty else ''}")
    for kind, count in Counter(kind for faults in faulty for kind in faults).most_common():
        say(f"  {kind}: {count}")
    if missing := Counter(outcome.missing for outcome in outcomes if outcome.missing):
        say(f"{missing.total()} problems still wait for an answer; run it again to go on:")
        for reason, count in missing.most_common(3):
            say(f"  {count}: {reason}")
    return kept


@click.command("generate_sg", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", metavar="PROBLEMS", type=words.path)
@click.option("--out", type=words.path, required=True, metavar="FILE")
@click.option("--teacher", type=words.models, required=True, help="openai:MODEL, a known model's name or a GGUF file.")
@click.option(
    "--answerer",
    type=words.models,
    metavar="MODEL",
    help="Who is to reach the answers: a model's name or a GGUF file.",
)
@click.option("--tries", type=click.IntRange(1), default=3, show_default=True, metavar="K", help="For each problem.")
@click.option("--parallel", type=click.IntRange(1), default=4, show_default=True, metavar="N", help="Problems at once.")
@click.option("--threads", type=int, metavar="N", help="Of local models.  [default: the physical cores]")
@click.option("--restart", is_flag=True, help="Forget all answers that there are, and overwrite FILE.")
@click.option("--base-url", metavar="URL", help="Of the endpoint; its key is in the environment, OPENAI_API_KEY.")
@click.option("--seeds", type=words.path, default=SEEDS, metavar="FILE", help="Examples of guidances.")
@click.option("--shots", type=click.IntRange(0), default=3, show_default=True, metavar="N", help="Examples a prompt.")
@click.option("--timeout", type=words.number(0, above=True), default=120.0, show_default=True, metavar="SECONDS")
@click.option("--max-tokens", type=click.IntRange(1), default=1024, show_default=True, help="Of one answer.")
@click.option("--price-in", type=words.number(0), default=0.0, metavar="X", help="Of a million tokens of prompts.")
@click.option("--price-out", type=words.number(0), default=0.0, metavar="X", help="Of a million tokens of answers.")
@click.option("--max-cost", type=words.number(0), metavar="X", help="Ask for no more than that, all runs together.")
def command(
    source: Path,
    out: Path,
    teacher: str,
    answerer: str | None,
    tries: int,
    parallel: int,
    threads: int | None,
    restart: bool,
    **remote: Any,
) -> int:
    """Let a teacher write guidances for PROBLEMS, and keep those that prove right."""
    began = time.monotonic()
    model = teacher.removeprefix(REMOTE)
    is_remote = model != teacher
    source_of = click.get_current_context().get_parameter_source
    if not is_remote and (unused := [name for name in remote if source_of(name) is not ParameterSource.DEFAULT]):
        raise click.UsageError(f"--{unused[0].replace('_', '-')}: expected a teacher openai:MODEL, found {teacher}")
    prices, limit = (remote.pop("price_in"), remote.pop("price_out")), remote.pop("max_cost")
    if limit is not None and not any(prices):
        raise click.UsageError("--max-cost: expected --price-in or --price-out with it, found neither")
    problems = read(source)
    journal_file = Path(f"{out}.journal")
    ours = journal_file.exists() or restart
    if out.exists() and (not ours or not out.is_file() or out.samefile(source)):
        raise InputError(f"--out: {out} is there and not made by this command: name another file")
    with ExitStack() as stack:
        writer: Teacher | None = RemoteTeacher(model, **remote) if is_remote else None
        if local := [name for name in (None if is_remote else teacher, answerer) if name]:
            solver = stack.enter_context(Solver.open(*local, parallel=parallel, threads=threads))
        journal = stack.enter_context(Journal(journal_file, restart=restart))
        ledger = Ledger(journal, writer or LocalTeacher(solver), prices, limit)
        outcomes = Generation(ledger, tries, solver if answerer else None).run(problems, parallel)
    _write(out, outcomes)
    kept = _report(outcomes)
    say(f"judged by the check and by what {answerer} makes of them" if answerer else "judged by the check alone")
    say(f"{ledger}, all runs together; {(time.monotonic() - began) / 60:.1f} minutes: {out}")
    if ledger.trouble:
        raise SgftError(ledger.trouble)
    return 0 if kept else 1


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv, "generate_sg")


if __name__ == "__main__":
    sys.exit(main())
