"""The folder of an export, which appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from convert.errors import ConversionError
from sgft_edge.errors import InputError
from sgft_edge.host.files import place
from sgft_edge.host.folders import appearing
from sgft_edge.host.machine import MB


@contextlib.contextmanager
def staged(out: Path, force: bool = False) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `out` when the block ends well (see `appearing`).

    Raises `InputError` where `out` exists, unless `force`; `ConversionError` where another run writes there or the
    disk refuses.
    """
    out = Path(os.path.abspath(place(str(out))))
    if not out.name:
        raise InputError(f"--out: expected a folder's name, found {out}")
    try:
        if out.exists() and not force and (out.is_file() or any(out.iterdir())):
            raise InputError(f"--out {out}: expected a folder that is not there yet, found one: --force replaces it")
        with appearing(out) as work:
            yield work
    except BlockingIOError:
        raise ConversionError(f"--out {out}: another export writes there now") from None
    except OSError as e:
        raise ConversionError(f"--out {out}: cannot write there: {e.strerror or f'{e}: is the disk full?'}") from e


def need_room(folder: Path, needed: int) -> None:
    """Raise `ConversionError` unless the disk has that many bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConversionError(
            f"needs about {needed / MB:.0f} MB of free space in {folder.parent}, found {free / MB:.0f} MB: "
            "free some, or choose another --out"
        )
