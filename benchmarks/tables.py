"""The tables of docs/results.md, from the rows that `results.sh` left in a folder, or from those kept of them.

usage: python -m benchmarks.tables ROWS [--first 100] [--set gsm8k-test] [--keep FILE.jsonl.xz]

ROWS is a folder, or a file that --keep wrote: what was answered, and at what price, without the problems' texts, whose
licences differ. Each set's runs on its first problems, in the order of results.sh, are compared with `cot`. Below each
table stands the SHA-256 of the kept form of the rows that it counts.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sgft_edge.evaluation.report import digest, runs, summarize

Row = dict[str, Any]
ORDER = (
    *("direct", "cot", "plan", "calc", "program", "untuned-sg", "tuned-sg", "untuned-first", "untuned-stepwise"),
    *("tuned-first", "tuned-stepwise", "votes", "panel", "teacher", "teacher-tuned"),
)
NAMES = {
    "plan": "`plan` (Plan-and-Solve)",
    "untuned-sg": "`sg`, untuned guide",
    "tuned-sg": "`sg`, tuned guide (SGFT)",
    "untuned-first": "`exact`, plan first, untuned",
    "untuned-stepwise": "`exact`, stepwise, untuned",
    "tuned-first": "`exact`, plan first, shipped adapters",
    "tuned-stepwise": "`exact`, stepwise, shipped adapters",
    "votes": "`exact`, shipped adapters, 5 votes",
    "panel": "`panel`, shipped adapters",
    "teacher": "`exact` along a teacher's guidance, untuned",
    "teacher-tuned": "`exact` along a teacher's guidance, shipped adapters",
}
_KEPT = ("line", "reference", "answer", "correct", "strategy", "solved_by", "truncated", "usage", "wall_seconds", "run")
_LEFT_OUT: Row = {"guidance": [], "steps": [], "notes": [], "text": "", "choices": {}}


def kept(row: Row) -> Row:
    """A row without texts; the question's digest tells which problem it is of."""
    name = hashlib.sha256(row["question"].encode()).hexdigest()[:16]
    return {"question": name, **{key: row[key] for key in (*_KEPT, "error") if key in row}}


def read(source: Path) -> dict[tuple[str, str], list[Row]]:
    """Rows by their set and run, of a file in a folder those that were written last."""
    found: dict[tuple[str, str], list[Row]] = {}
    if source.is_dir():
        for file in sorted(source.glob("*.jsonl")):
            name, _, run = file.stem.rpartition(".")
            written = runs(map(json.loads, file.read_text().splitlines()))
            if run in ORDER and written:
                found[name, run] = [kept(row) for row in written[-1]]
        return found
    with lzma.open(source, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            found.setdefault((row.pop("set"), row.pop("name")), []).append(row)
    return found


def markdown(found: dict[str, list[Row]]) -> Iterator[str]:
    """The table's lines."""
    whole = {run: [_LEFT_OUT | row for row in rows] for run, rows in found.items()}
    yield "| | correct | 95 % | no answer | tokens | gained, lost | P |"
    yield "|---|---|---|---|---|---|---|"
    for run, rows in whole.items():
        line = summarize(rows, whole.get("cot") if run != "cot" else None)
        low, high = line.interval
        flips = f"+{line.flips.gained} -{line.flips.lost} | {line.flips.p:.2g}" if line.flips else " | "
        counts = f"{line.correct}/{line.problems} | {100 * low:.0f}-{100 * high:.0f} | {line.unparsed}"
        yield f"| {NAMES.get(run, f'`{run}`')} | {counts} | {line.decoded:.0f} | {flips} |"
    yield ""
    if "panel" in found:
        agreed = [row["correct"] for row in found["panel"] if row["solved_by"] == "panel"]
        yield f"Of the {len(agreed)} answers that two ways of `panel` agree on, {sum(agreed)} are right."
        yield ""
    yield f"Rows: `{digest(found.values())[:16]}`"


@click.command()
@click.argument("source", metavar="ROWS", type=click.Path(exists=True, path_type=Path))
@click.option("--first", default=100, show_default=True, metavar="N", help="Problems that every run must have.")
@click.option("--set", "wanted", multiple=True, metavar="NAME", help="Only this set; repeatable.")
@click.option("--keep", type=click.Path(path_type=Path), help="Write the rows without texts to this file.")
def main(source: Path, first: int, wanted: tuple[str, ...], keep: Path | None) -> None:
    """Print the tables."""
    found = read(source)
    if keep is not None:
        with lzma.open(keep, "wt", preset=9) as lines:
            for (name, run), rows in sorted(found.items()):
                for row in sorted(rows, key=lambda row: int(row["line"])):
                    lines.write(json.dumps({"set": name, "name": run, **row}) + "\n")
    for name in wanted or sorted({name for name, _ in found}):
        part = {run: [row for row in found.get((name, run), []) if row["line"] <= first] for run in ORDER}
        whole = {run: rows for run, rows in part.items() if len(rows) == first}
        if whole:
            click.echo("\n".join([f"\n**{name}**, first {first}\n", *markdown(whole)]))


if __name__ == "__main__":
    main()
