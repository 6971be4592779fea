"""A folder that appears whole or not at all, whatever happens on the way."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sgft_edge.host.locks import alone


@contextlib.contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out` that takes its place when the block ends well, and is gone when it fails.

    What a killed run left is cleared by the next one; a folder that it had only set aside is put back first. Raises
    `BlockingIOError` where another process writes there, `OSError` where the disk refuses.
    """
    work, old = (out.with_name(f".{out.name}.{kind}") for kind in ("part", "old"))
    out.parent.mkdir(parents=True, exist_ok=True)
    with alone(out.with_name(f".{out.name}.lock"), wait=False):
        _clear(work)
        if old.exists() and not out.exists():  # killed between the two steps of `_replace`
            old.rename(out)
        _clear(old)
        try:
            work.mkdir()
            yield work
            _replace(out, work, old)
        finally:
            _clear(work)


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _replace(out: Path, work: Path, old: Path) -> None:
    for path in work.rglob("*"):
        if path.is_file():
            flush(path)
    if out.exists():
        out.rename(old)
    try:
        work.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    _clear(old)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
