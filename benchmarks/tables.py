"""The tables of docs/results.md from the rows that `benchmarks/results.sh` left in a folder.

usage: python -m benchmarks.tables FOLDER [--first 100] [--set gsm8k-test]

Each set's runs on its first problems, in the order of results.sh, compared with `cot`. Below each table stands the
SHA-256 of the rows that it counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from sgft_edge.report import Line, digest, summarize

ORDER = (
    *("direct", "cot", "plan", "calc", "program", "untuned-sg", "tuned-sg", "untuned-first", "untuned-stepwise"),
    *("tuned-first", "tuned-stepwise", "votes", "teacher", "teacher-tuned"),
)
NAMES = {
    "plan": "plan (Plan-and-Solve)",
    "untuned-sg": "sg, untuned guide",
    "tuned-sg": "sg, tuned guide (SGFT)",
    "untuned-first": "exact, plan first, untuned",
    "untuned-stepwise": "exact, stepwise, untuned",
    "tuned-first": "exact, plan first, shipped adapters",
    "tuned-stepwise": "exact, stepwise, shipped adapters",
    "votes": "exact, shipped adapters, 5 votes",
    "teacher": "exact along a teacher's guidance, untuned",
    "teacher-tuned": "exact along a teacher's guidance, shipped adapters",
}


def runs(folder: Path, name: str, first: int) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """The runs of a set that have all of the first problems, each with its rows in the problems' order."""
    for run in ORDER:
        file = folder / f"{name}.{run}.jsonl"
        if not file.is_file():
            continue
        rows = [row for row in map(json.loads, file.read_text().splitlines()) if row["line"] <= first]
        if len(rows) == first:
            yield run, sorted(rows, key=lambda row: int(row["line"]))


def markdown(found: dict[str, list[dict[str, object]]]) -> Iterator[str]:
    """The table's lines."""
    yield "| | correct | 95 % | no answer | tokens | gained, lost against `cot` | P |"
    yield "|---|---|---|---|---|---|---|"
    for run, rows in found.items():
        line: Line = summarize(rows, found.get("cot") if run != "cot" else None)
        low, high = line.interval
        flips = f"+{line.flips.gained} -{line.flips.lost} | {line.flips.p:.2g}" if line.flips else " | "
        cells = (f"{line.correct}/{line.problems}", f"{100 * low:.0f}-{100 * high:.0f}", line.unparsed)
        name = NAMES.get(run, f"`{run}`")
        yield f"| {name} | {' | '.join(map(str, cells))} | {line.decoded:.0f} | {flips} |"
    yield ""
    yield f"Rows: `{digest(found.values())[:16]}`"


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--first", default=100, show_default=True, metavar="N", help="Problems that every run must have.")
@click.option("--set", "wanted", multiple=True, metavar="NAME", help="Only this set; repeatable.")
def main(folder: Path, first: int, wanted: tuple[str, ...]) -> None:
    """Print the tables."""
    for name in sorted({file.name.split(".")[0] for file in folder.glob("*.jsonl")}):
        if wanted and name not in wanted:
            continue
        if found := dict(runs(folder, name, first)):
            click.echo(f"\n**{name}**, first {first}\n")
            click.echo("\n".join(markdown(found)))


if __name__ == "__main__":
    main()
