"""Locks between processes: of a file that is written, or of a place where something is to appear.

The system lets go of them when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_POLL_SECONDS = 0.2
_FAR = 1 << 40  # Windows locks bytes, and against readers too: one that no file has


def hold(file: IO[bytes], *, wait: bool) -> None:
    """Lock an open file until it is closed. Raises `BlockingIOError` where another has it and nobody waits.

    On a file system that knows no locks, it holds nothing.
    """
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                file.seek(_FAR)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                return
            except OSError as e:
                if not wait:
                    raise BlockingIOError(e.errno, "another process writes there") from e
                time.sleep(_POLL_SECONDS)
    else:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise BlockingIOError(e.errno, "another process writes there") from e
        except OSError:  # some network file systems
            return


@contextlib.contextmanager
def alone(lock: Path, *, wait: bool) -> Iterator[None]:
    """Hold a place by a lock file, which is gone afterwards. Raises `BlockingIOError` as `hold` does, and `OSError`."""
    while True:
        with lock.open("ab") as handle:
            hold(handle, wait=wait)
            if not is_at(handle, lock):  # whoever had it took it away
                continue
            try:
                yield
            finally:
                if sys.platform == "win32":
                    handle.close()
                with contextlib.suppress(OSError):
                    lock.unlink()
            return


def is_at(handle: IO[bytes], path: Path) -> bool:
    """Whether an open file is still the one that has this path."""
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except OSError:
        return False
