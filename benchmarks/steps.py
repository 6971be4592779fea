"""How many steps a guide takes where one is enough.

usage: python -m benchmarks.steps PROBLEMS.jsonl ROWS.jsonl...

PROBLEMS have a reference guidance each; ROWS are what `sgft-edge evaluate PROBLEMS --output ROWS` wrote. Printed for
each strategy and number of steps in the reference: how many problems there are, and how many were solved in as many
steps, in fewer, and in more.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import click

from sgft_edge.reasoning.problems import read_problems
from sgft_edge.text.guidance import parse


@click.command()
@click.argument("problems", type=click.Path(exists=True, path_type=Path))
@click.argument("rows", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(problems: Path, rows: tuple[Path, ...]) -> None:
    """Print a line for each strategy and number of steps."""
    needed = {p.number: len(parse(p.asked.guidance).steps) for p in read_problems(problems) if p.asked.guidance}
    counts: Counter[tuple[str, int, str]] = Counter()
    for path in rows:
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if (wanted := needed.get(row["line"])) and row.get("steps"):
                taken = len(row["steps"])
                kind = "as many" if taken == wanted else "fewer" if taken < wanted else "more"
                counts[row["strategy"], wanted, kind] += 1
    for strategy, wanted in sorted({(strategy, wanted) for strategy, wanted, _ in counts}):
        as_many, fewer, more = (counts[strategy, wanted, kind] for kind in ("as many", "fewer", "more"))
        print(
            f"{strategy:8} {wanted} needed: {as_many} of {as_many + fewer + more} as many, {fewer} fewer, {more} more"
        )


if __name__ == "__main__":
    main()
