"""`sgft-edge evaluate`: strategies side by side on problems with known answers."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click

from sgft_edge.errors import InputError
from sgft_edge.evaluation.calibration import calibrate, calibrated_entry
from sgft_edge.evaluation.made import MadeGuidance, read_guidances
from sgft_edge.evaluation.report import digest, report, runs
from sgft_edge.evaluation.row import Row, Rows
from sgft_edge.evaluation.testsets import find_problems
from sgft_edge.evaluation.trial import run_trial
from sgft_edge.host.files import refusal, write_atomically
from sgft_edge.host.journal import Journal
from sgft_edge.reasoning.problems import Problem, read_rows, with_references
from sgft_edge.reasoning.settings import ANSWERING
from sgft_edge.reasoning.strategies import parts
from sgft_edge.terminal import words
from sgft_edge.terminal.options import guide_of, model_options, open_solver, settings_from, settings_options
from sgft_edge.terminal.progress import counted_progress
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import remark


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv)


@click.command("evaluate", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", required=False)
@click.option(
    "--from",
    "saved",
    type=words.path,
    multiple=True,
    help="Show the rows of earlier runs; runs nothing.",
)
@click.option("--strategy", "names", default="direct,cot,plan,program,sg,exact", show_default=True, metavar="A,B,...")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N problems only.")
@click.option("--shuffle", type=int, metavar="SEED", help="Take them in a random order.")
@click.option("--given-guidance", is_flag=True, help="Follow the 'guidance' of each row instead of the guide's own.")
@click.option(
    "--guidance",
    "guided",
    type=words.path,
    multiple=True,
    help="Follow those that `solve --strategy guidance --input FILE` wrote; no guide is loaded.",
)
@click.option("--output", type=words.path, help="Rows; resumes.  [default: FILE.rows.jsonl]")
@click.option("--calibrate", "calibrates", is_flag=True, help="Let --strategy auto take what was best for this model.")
@click.option("--restart", is_flag=True, help="Overwrite the output instead of resuming.")
@click.option(
    "--report",
    "reports",
    type=words.path,
    multiple=True,
    help="Also write a page (.html) or tables (.md).",
)
@click.option("--parallel", default=8, show_default=True, metavar="N", help="Questions at once.")
@settings_options
@model_options
def command(
    file: str | None,
    saved: tuple[Path, ...],
    names: str,
    limit: int | None,
    shuffle: int | None,
    given_guidance: bool,
    guided: tuple[Path, ...],
    reports: tuple[Path, ...],
    calibrates: bool,
    **given: Any,
) -> None:
    """Measure strategies on FILE: JSONL rows with "question", "answer" and perhaps "choices".

    Or on a public set by name: gsm8k, multiarith, svamp, aqua, commonsenseqa, strategyqa, arc; `gsm8k:train` names
    another split.

    --answerer takes several, separated by commas, and --guidance can be repeated: each answerer then follows each
    guide.

    Accuracy comes with Wilson's 95 % interval. Seconds are those of the whole run by the number of problems. GAINED and
    LOST count the problems that only this strategy, or only the table's first, got right, with McNemar's exact p.
    """
    for path in reports:
        if path.suffix not in (".html", ".md"):
            raise InputError(f"--report: expected a file whose name ends in .html or .md, found {path.name!r}")
    if saved and calibrates:
        raise click.UsageError("--calibrate: expected strategies to run, found --from")
    if saved:
        _show([run for path in saved for run in _saved(path)], reports, saved[0].stem)
        return
    if file is None:
        raise click.UsageError("expected a FILE of problems, or --from ROWS")
    strategies = list(dict.fromkeys(names.split(",")))
    answerers = (given["answerer"] or "").split(",")  # "" is the guide
    if "guidance" in strategies:
        raise click.UsageError("strategy guidance answers nothing: run it with sgft-edge solve --input")
    if guided and given_guidance:
        raise click.UsageError("expected --guidance or --given-guidance, found both")
    if calibrates and (
        guided or given_guidance or len(answerers) > 1 or not set(strategies) <= set(ANSWERING) or _has_adapters(given)
    ):
        raise click.UsageError(
            "--calibrate: expected one answerer, strategies by name, the model's own adapters and the guide's guidance"
        )
    if not (guided and all(answerers)):
        given["guide"] = guide_of(given)
    entry = calibrated_entry(answerers[0] or given["guide"]) if calibrates else None
    settings = {name: settings_from(given, name) for name in strategies}  # all looked at before the first runs
    made: list[dict[str, MadeGuidance] | None] = [read_guidances(path) for path in guided]
    problems = [_checked(problem, given_guidance) for problem in _found(file, shuffle)[:limit]]
    if not problems:
        raise InputError(f"{file}: expected problems, found none")
    output = given["output"] or Path(f"{Path(file).stem.replace(':', '-')}.rows.jsonl")
    if output.exists() and any(path.exists() and output.samefile(path) for path in (Path(file), *guided)):
        raise InputError(f"--output: expected a file of its own, found {output}, which is read here")
    measured: list[Rows] = []
    with Journal(output, restart=given["restart"]) as journal:
        for answerer in answerers:
            guide = answerer if guided and answerer else given["guide"]
            roles = {"guide": guide, "answerer": answerer or None}
            with open_solver(given | roles, settings[strategies[0]], given["parallel"]) as solver:
                for name in strategies:
                    for guidances in made if made and "guide" in parts(name, False) else [None]:
                        with counted_progress(name) as progress:
                            rows = run_trial(solver, settings[name], problems, journal, guidances, progress)
                        measured.append(rows)
    _show(measured, reports, Path(file).stem)
    remark(f"rows: {output}")
    for said in calibrate(entry, measured) if entry else ():
        remark(said)


def _saved(path: Path) -> list[list[Row]]:
    """The runs in a file of rows."""
    rows = [row for _, row in read_rows(path)]
    if not rows or any(not {"run", "line", "reference", "correct"} <= row.keys() for row in rows):
        found = "others" if rows else "none"
        raise InputError(f"--from: expected the rows of an evaluation in {path}, found {found}")
    return runs(cast("list[Row]", rows))


def _has_adapters(given: dict[str, Any]) -> bool:
    return {given["adapter"], given["answerer_adapter"]} != {"auto"}


def _show(found: Sequence[Rows], reports: tuple[Path, ...], name: str) -> None:
    """The tables on stdout, and each report in its file."""
    from sgft_edge.evaluation.page import page
    from sgft_edge.evaluation.table import markdown, print_tables

    summaries = report(found)
    print_tables(summaries)
    for path in reports:
        whole = page(found, summaries, name) if path.suffix == ".html" else markdown(summaries, digest(found))
        try:
            write_atomically(path, whole, errors="replace")
        except OSError as e:
            raise refusal(f"--report: cannot write {path}", e) from e


def _found(source: str, seed: int | None) -> list[Problem]:
    """The problems of a file or a set in their order, or in a random one."""
    problems = with_references(find_problems(source))
    if seed is not None:
        random.Random(seed).shuffle(problems)
    return problems


def _checked(problem: Problem, given_guidance: bool) -> Problem:
    question = problem.asked
    if problem.answer is None:
        raise InputError(f"line {problem.number}: expected an 'answer', found none")
    if given_guidance and question.guidance is None:
        raise InputError(f"line {problem.number}: expected a 'guidance', found none: leave out --given-guidance")
    return problem if given_guidance else replace(problem, question=replace(question, guidance=None))


if __name__ == "__main__":
    sys.exit(main())
