"""Rows of JSON in a file that only grows, so that a run that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from sgft_edge.errors import InputError, SgftError
from sgft_edge.host.files import refusal
from sgft_edge.host.locks import hold, is_at


class Journal:
    """An append-only JSONL file; a context manager.

    `rows` are those that were there; with `restart` there are none, and the file is emptied by the first row that is
    written, or at the end. A last line without its end, as a killed process leaves it, is dropped. Raises `InputError`
    where the file cannot be written or is something else, `SgftError` where another process writes it or the disk is
    full.
    """

    def __init__(self, path: Path, *, restart: bool = False) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._whole: int | None = None  # bytes of whole rows; None where it is a pipe or a device
        self._stale = False
        with self._refusals():
            self._file = path.open("ab", buffering=0)
        try:
            with self._refusals():
                if path.is_file():
                    hold(self._file, wait=False)
                    self._stale, self._whole = restart, 0 if restart else self._read()
                if self._whole is not None and not restart:
                    self._file.truncate(self._whole)
        except BaseException:
            self._file.close()
            raise

    def _read(self) -> int:
        """Read the rows; returns the length of the whole lines in bytes."""
        whole = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
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
        """Append a row; it survives the end of this process. Raises `InputError`, `SgftError`; then it is not there."""
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._refusals():
            self._empty()
            if self._whole is not None and not is_at(self._file, self.path):
                raise SgftError(f"output: {self.path} was taken away while rows were written: run it again")
            left = line
            try:
                while left:
                    left = left[self._file.write(left) :]
            except OSError:
                if self._whole is not None:
                    self._file.truncate(self._whole)
                raise
        if self._whole is not None:
            self._whole += len(line)

    def _empty(self) -> None:
        """Drop the rows that a restart is to overwrite."""
        if self._stale:
            self._file.truncate(0)
            self._stale = False

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError as e:
            raise SgftError(
                f"output: another process writes {self.path} now: wait until it is done, or name another file"
            ) from e
        except OSError as e:
            raise refusal(f"output: cannot write {self.path}", e) from e

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError):  # a pipe or a device
            if kind is None:
                self._empty()
            os.fsync(self._file.fileno())
        self._file.close()
