"""The rows that a training learns from: several files of solution guidance, some in part, some rows left out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from sgft_edge.errors import InputError
from sgft_edge.store.digests import file_digest
from train.check_sg import Row, read_sg
from train.settings import TrainSettings


@dataclass(frozen=True)
class Part:
    """One file's share of the mix: its name, its SHA-256, and how many of its rows are taken."""

    file: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Mix:
    """Rows in the order of their files, or shuffled where they are limited; `parts` say where they come from."""

    rows: list[Row]
    parts: list[Part]


def read_mix(settings: TrainSettings) -> Mix:
    """The rows that `settings` name. Raises `InputError` where a file or an id is not there."""
    left_out = read_ids(Path(settings.held_out)) if settings.held_out else set()
    rows: list[Row] = []
    digests: list[tuple[str, str]] = []
    unknown = set(left_out)
    for source in settings.data:
        path, limit = _source(source)
        found = read_sg(path)
        unknown -= {row.id for row in found}
        rows += [row for row in found if row.id not in left_out][:limit]
        digests.append((path.name, file_digest(path)))
    if settings.held_out and unknown == left_out:
        raise InputError(f"held_out: {settings.held_out}: expected ids of rows of the data, found none of them")
    if settings.rows:
        random.Random(settings.seed).shuffle(rows)
        rows = rows[: settings.rows]
    counts = Counter(row.file for row in rows)
    return Mix(rows, [Part(file, digest, counts[file]) for file, digest in digests])


def read_ids(path: Path) -> Set[str]:
    """The ids in a file, one a line; blank lines and those that begin with # are skipped. Raises `InputError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as e:
        raise InputError(f"held_out: cannot read {path}: {getattr(e, 'strerror', None) or e}") from e
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def _source(text: str) -> tuple[Path, int | None]:
    """FILE or FILE:N."""
    path, colon, count = text.rpartition(":")
    if colon and count.isdecimal():
        if int(count) < 1:
            raise InputError(f"data: {text}: expected at least 1 row")
        return Path(path), int(count)
    return Path(text), None
