"""Which strategy measured best for a model, written to its entry: `--strategy auto` takes it from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sgft_edge.errors import InputError
from sgft_edge.manifest import Entry, put
from sgft_edge.places import entry_for
from sgft_edge.report import Rows, summarize

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
        lines = {rows[0]["run"]["strategy"]: summarize(rows) for rows in measured if rows}
        if not lines:
            continue
        best = max(lines, key=lambda strategy: (lines[strategy].correct, -lines[strategy].decoded))
        line = lines[best]
        entry = replace(entry, own=True, **{field: best})
        few = f"; {line.problems} problems say little" if line.problems < FEW else ""
        said.append(f"{entry.name}: {best} for questions with {kind} ({line.correct}/{line.problems}){few}")
    put(entry)
    return said
