"""Rows of JSON in a file that only grows, so that a run that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from sgft_edge.errors import InputError


class Journal:
    """An append-only JSONL file; a context manager.

    `rows` are those that were there. A last line without its end, as a killed process leaves it, is dropped. Raises
    `InputError` where the file cannot be written or is something else.
    """

    def __init__(self, path: Path, *, restart: bool = False) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        try:
            goes_on = path.is_file() and not restart  # a pipe or a device has no rows
            self._file = path.open("ab" if goes_on else "wb", buffering=0)
            if goes_on:
                with path.open("rb") as file:
                    self._file.truncate(self._read(file))
        except OSError as e:
            raise InputError(f"output: cannot write {path}: {e.strerror or e}") from e

    def _read(self, file: BinaryIO) -> int:
        """Read the rows; returns the length of the whole lines in bytes."""
        whole = 0
        for number, line in enumerate(file, start=1):
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
            self.rows.append(row)
        return whole

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; it survives the end of this process. Raises `InputError`."""
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as e:
            raise InputError(f"output: cannot write {self.path}: {e.strerror or e}") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a pipe or a device
            os.fsync(self._file.fileno())
        self._file.close()
