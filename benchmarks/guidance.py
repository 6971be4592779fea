"""The share of written guidances that are without fault, from the rows that `sgft-edge evaluate` keeps.

usage: python -m benchmarks.guidance ROWS.jsonl...

Every row of strategy `sg` or `exact` that has a guidance of the guide's own counts; `train.check_sg` judges it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from sgft_edge.evaluation.report import runs, summarize
from sgft_edge.evaluation.significance import wilson
from sgft_edge.reasoning.problems import read_rows
from sgft_edge.reasoning.question import Question
from train.check_sg import Row, faults_of


def faults(row: dict[str, Any]) -> list[str]:
    """The kinds of faults of the guidance in one row."""
    guidance = "\n".join(f"{number}. {step}" for number, step in enumerate(row["guidance"], start=1))
    question = Question(row["question"], row["choices"])
    return [fault.kind for fault in faults_of(Row("", 0, "", question, guidance, row["reference"], None))]


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def main(paths: tuple[Path, ...]) -> None:
    """Print the share, and the faults by kind."""
    for path in paths:
        for run in runs(row for _, row in read_rows(path)):
            if run[0]["run"]["given_guidance"] or not any(row.get("guidance") for row in run):
                continue
            found = [faults(row) if row.get("guidance") else ["none written"] for row in run]
            valid = sum(not kinds for kinds in found)
            low, high = wilson(valid, len(run))
            kinds = ", ".join(f"{kind} {n}" for kind, n in Counter(k for f in found for k in set(f)).most_common())
            print(
                f"{path.name}: {summarize(run).name}: {valid}/{len(run)} ({100 * low:.0f}-{100 * high:.0f} %)"
                + (f"; {kinds}" if kinds else "")
            )


if __name__ == "__main__":
    main()
