"""A folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from convert.errors import ConversionError
from sgft_edge.errors import InputError
from sgft_edge.host.files import place
from sgft_edge.host.machine import MB


@contextlib.contextmanager
def staged(out: Path, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `out` that takes its place when the block ends well, and is gone when it fails.

    What a killed run left is cleared by the next one. Raises `InputError` where `out` exists, unless `force`;
    `ConversionError` where another run writes there or the disk refuses.
    """
    out = Path(os.path.abspath(place(str(out))))
    if not out.name:
        raise InputError(f"--out: expected a folder's name, found {out}")
    work, lock = out.with_name(f".{out.name}.part"), FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
    try:
        if out.exists() and not force and (out.is_file() or any(out.iterdir())):
            raise InputError(f"--out {out}: expected a folder that is not there yet, found one: --force replaces it")
        out.parent.mkdir(parents=True, exist_ok=True)
        with _held(lock):
            _clear(work)
            work.mkdir()
            try:
                yield work
                _replace(out, work)
            finally:
                _clear(work)
    except Timeout:
        raise ConversionError(f"--out {out}: another export writes there now") from None
    except OSError as e:
        raise ConversionError(f"--out {out}: cannot write there: {e.strerror or f'{e}: is the disk full?'}") from e


@contextlib.contextmanager
def _held(lock: FileLock) -> Iterator[None]:
    """Hold a lock, and take its file away with it."""
    with lock:
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def need_room(folder: Path, needed: int) -> None:
    """Raise `ConversionError` unless the disk has that many bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConversionError(
            f"needs about {needed / MB:.0f} MB of free space in {folder.parent}, found {free / MB:.0f} MB: "
            "free some, or choose another --out"
        )


def _replace(out: Path, work: Path) -> None:
    for path in work.rglob("*"):
        if path.is_file():
            flush(path)
    old = out.with_name(f".{out.name}.old")
    _clear(old)
    if out.exists():
        out.rename(old)
    work.rename(out)
    _clear(old)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
