"""Standard input, output and error, whatever they are: closed, full, without a reader, or of another encoding.

An answer is written or the command fails; what stderr cannot take is let go, and the work goes on.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from sgft_edge.text.controls import on_one_line, visible

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputLost(Exception):
    """Standard output does not take what is written. It ends the command: no `SgftError`, so nothing goes on after it.

    `abandoned`: whoever read it has gone.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write to standard output: {error.strerror or error}")
        self.abandoned = error.errno == errno.EPIPE


class _Output(io.FileIO):
    """Standard output; it fails once, and what is still in a buffer then is let go."""

    _lost = False

    def write(self, data: ReadableBuffer) -> int:
        if self._lost:
            return memoryview(data).nbytes
        try:
            while (written := super().write(data)) is None:  # another process made the pipe non-blocking
                select.select([], [self], [])
        except OSError as e:
            self._lost = True
            raise OutputLost(e) from e
        return written


class _Remarks(io.FileIO):
    """Standard error, which stops nothing."""

    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data) or memoryview(data).nbytes
        except OSError:
            return memoryview(data).nbytes


@contextmanager
def guarded() -> Iterator[None]:
    """Standard streams as this module says, until the block ends.

    A closed one is opened, lest the next file that is opened become it: output as one that cannot be written.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    if sys.stdin is None:
        sys.stdin = open(os.open(os.devnull, os.O_WRONLY), encoding="utf-8")  # noqa: SIM115
    sys.stdout = _with_raw(sys.stdout, 1, _Output) if sys.stdout is not None else _text(_unwritable(), _Output)
    sys.stderr = _with_raw(sys.stderr, 2, _Remarks) if sys.stderr is not None else _text(_unwritable(), _Remarks)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def say(text: object = "", *, nl: bool = True, **style: Any) -> None:
    """Write to standard output: to a terminal what does not steer it, elsewhere the text as it is."""
    shown = str(text)
    if sys.stdout.isatty():
        shown = click.style(visible(shown), **style) if style else visible(shown)
    click.echo(shown, file=sys.stdout, nl=nl, color=True)  # click would take escapes out of what goes to a pipe


def remark(text: str = "") -> None:
    """Write to standard error, with control characters spelt out."""
    click.echo(visible(text), file=sys.stderr)


def complain(error: Exception | str) -> None:
    """Tell on one line what went wrong."""
    message = str(error)
    if isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    remark(f"sgft-edge: error: {on_one_line(message)}")


def _with_raw(stream: TextIO, number: int, kind: type[io.FileIO]) -> TextIO:
    """A stream as a text stream over a raw file of this kind; one that is no file of this number stays."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    if type(raw) is not io.FileIO or raw.fileno() != number:
        return stream
    stream.flush()
    return _text(number, kind, stream.encoding)


def _text(number: int, kind: type[io.FileIO], encoding: str = "utf-8") -> TextIO:
    raw = kind(number, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "replace", line_buffering=number == 2 or raw.isatty())


def _unwritable() -> int:
    """A file that takes nothing: it gets the number of what is closed, unless another file has that already."""
    return os.open(os.devnull, os.O_RDONLY)
