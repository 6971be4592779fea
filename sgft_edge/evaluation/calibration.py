"""Which strategy measured best for a model, written to its entry: `--strategy auto` takes it from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sgft_edge.errors import InputError
from sgft_edge.evaluation.report import summarize
from sgft_edge.evaluation.row import Rows
from sgft_edge.store.manifest import Entry, put
from sgft_edge.store.places import entry_for

FEW = 50  # problems, below which the intervals of good and bad strategies overlap


def calibrated_entry(model: str) -> Entry:
    """The entry that a calibration is written to. Raises `InputError` for a file that has none."""
    entry = entry_for(model)
    if entry is None:
        raise InputError(f"--calibrate: expected a model by name, found {model}: name it with sgft-edge models add")
    return entry


def calibrate(entry: Entry, found: Sequence[Rows]) -> list[str]:
    """Write the best strategy for questions with numbers, and for those with choices, as far as they were measured.

    The best is the one with the most right answers, of equals that which decodes least. Returns what to say of it.
    """
    said = []
    for field, choices, kind in (("auto", False, "numbers"), ("auto_choices", True, "choices")):
        measured = [[row for row in rows if bool(row["choices"]) == choices] for rows in found]
        summaries = {rows[0]["run"]["strategy"]: summarize(rows) for rows in measured if rows}
        if not summaries:
            continue
        best = max(summaries, key=lambda strategy: (summaries[strategy].correct, -summaries[strategy].decoded))
        summary = summaries[best]
        chosen: dict[str, Any] = {field: best}
        entry = replace(entry, own=True, **chosen)
        few = f"; {summary.problems} problems say little" if summary.problems < FEW else ""
        said.append(f"{entry.name}: {best} for questions with {kind} ({summary.correct}/{summary.problems}){few}")
    put(entry)
    return said
