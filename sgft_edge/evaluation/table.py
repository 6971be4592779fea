"""An evaluation as tables: on a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sgft_edge.evaluation.failures import CLASSES
from sgft_edge.evaluation.report import Summary
from sgft_edge.text.controls import on_one_line

_WIDE = 200  # columns, where a table goes to a file


@dataclass(frozen=True, slots=True)
class Table:
    """Titles and rows of text; the first `words` columns are words, the others numbers."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1

    @property
    def aligned(self) -> list[Literal["left", "right"]]:
        return ["left" if n < self.words else "right" for n in range(len(self.titles))]


def results(summaries: Sequence[Summary]) -> Table:
    """What each run got right, at which price, against the first."""
    several = len({summary.models for summary in summaries}) > 1
    compared = any(summary.flips for summary in summaries)
    titles = ["strategy", *(["models"] if several else []), "correct", "accuracy", "95 %", "no answer", "fell back"]
    titles += ["tokens", "seconds", *(["gained", "lost", "p"] if compared else [])]
    rows = []
    for summary in summaries:
        low, high = summary.interval
        cells = [summary.name, *([summary.models] if several else []), f"{summary.correct}/{summary.problems}"]
        cells += [f"{100 * summary.accuracy:.1f} %", f"{100 * low:.0f}-{100 * high:.0f}"]
        cells += [str(summary.unparsed), str(summary.fallbacks), f"{summary.decoded:.1f}", f"{summary.seconds:.2f}"]
        if compared:
            flips = summary.flips
            cells += [f"+{flips.gained}", f"-{flips.lost}", f"{flips.p:.2g}"] if flips else [""] * 3
        rows.append(tuple(cells))
    return Table(tuple(titles), tuple(rows), 1 + several)


def costs(summaries: Sequence[Summary]) -> Table:
    """Tokens and seconds a problem by stage, and memory."""
    columns = (
        ("read", "read", 1),
        ("from cache", "reused", 1),
        ("guide wrote", "guide_tokens", 1),
        ("answerer wrote", "answerer_tokens", 1),
        ("guide's seconds", "guide_seconds", 2),
        ("answerer's seconds", "answerer_seconds", 2),
        ("MB at peak", "peak_mb", 0),
    )

    def cell(summary: Summary, name: str, digits: int) -> str:
        value = getattr(summary, name)
        return "" if value is None else f"{value:.{digits}f}"

    cells = tuple(
        (summary.name, *(cell(summary, name, digits) for _, name, digits in columns)) for summary in summaries
    )
    return Table(("strategy", *(title for title, _, _ in columns)), cells)


def failures(summaries: Sequence[Summary]) -> Table:
    """The wrong answers by class; classes that nobody has are left out."""
    kinds = tuple(kind for kind in CLASSES if any(summary.failures.get(kind) for summary in summaries))
    return Table(
        ("strategy", *kinds),
        tuple((summary.name, *(str(summary.failures.get(kind, 0)) for kind in kinds)) for summary in summaries),
    )


def print_tables(summaries: Sequence[Summary]) -> None:
    """What was right and what went wrong, on stdout."""
    from rich import table as rich
    from rich.console import Console
    from rich.text import Text

    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDE
    shown = [results(summaries), *([failures(summaries)] if any(summary.failures for summary in summaries) else [])]
    for n, table in enumerate(shown):
        drawn = rich.Table(box=None, pad_edge=False)
        for title, side in zip(table.titles, table.aligned, strict=True):
            drawn.add_column(title.upper(), justify=side, overflow="fold")
        for row in table.rows:
            drawn.add_row(*(Text(on_one_line(cell)) for cell in row))
        console.print(*(["\nwrong answers:"] if n else []), drawn, sep="\n")


def markdown(summaries: Sequence[Summary], digest: str) -> str:
    """The three tables, and which rows they are of."""
    sections = (
        ("", results(summaries)),
        ("Wrong answers", failures(summaries)),
        ("Tokens a problem", costs(summaries)),
    )
    parts = [f"{title}\n\n{_markdown(table)}".strip() for title, table in sections if len(table.titles) > 1]
    return "\n\n".join([*parts, f"SHA-256 of the rows: {digest}"]) + "\n"


def _markdown(table: Table) -> str:
    rules = ["---" if side == "left" else "---:" for side in table.aligned]
    rows = (table.titles, rules, *table.rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
