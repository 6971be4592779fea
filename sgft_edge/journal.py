"""Rows of JSON in a file that only grows, so that a run that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from sgft_edge.errors import InputError


class Journal:
    """An append-only JSONL file; a context manager.

    `rows` are those that were there. A last line without its end, as a killed process leaves it, is dropped. Raises
    `InputError` where the file cannot be written or is something else.
    """

    def __init__(self, path: Path, *, restart: bool = False) -> None:
        self.path = path
        try:
            self._file = path.open("w+b" if restart else "a+b")
            self.rows = list(self._read())
        except OSError as e:
            raise InputError(f"output: cannot write {path}: {e.strerror or e}") from e

    def _read(self) -> Iterator[dict[str, Any]]:
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise InputError(
                    f"output: line {number} of {self.path} is not a JSON object, so it is not ours to go on with: "
                    "name another file, or pass --restart to overwrite it"
                )
            whole += len(line)
            yield row
        self._file.truncate(whole)
        self._file.seek(whole)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; it survives the end of this process. Raises `InputError`."""
        try:
            self._file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            self._file.flush()
        except OSError as e:
            raise InputError(f"output: cannot write {self.path}: {e.strerror or e}") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a pipe or a device
            os.fsync(self._file.fileno())
        self._file.close()
