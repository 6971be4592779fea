"""llama.cpp as a library: its start, its log, and how it hands out strings."""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as c

from sgft_edge.store.header import check_gguf

_LOG_WARN, _LOG_ERROR = 3, 4


class Log:
    """llama.cpp writes its reasons to a log only; this keeps what error messages and reports need."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.offloaded: tuple[int, int] | None = None
        self.listener: Callable[[str], None] | None = None
        self.callback = c.llama_log_callback(self._write)

    def _write(self, level: int, text: bytes, _: Any) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level in (_LOG_WARN, _LOG_ERROR) and line:
            self.problems = [*self.problems[-7:], line]
        elif found := re.search(r"offloaded (\d+)/(\d+) layers", line):
            self.offloaded = int(found[1]), int(found[2])
        if self.listener is not None:
            self.listener(line)

    def clear(self) -> None:
        self.problems, self.offloaded = [], None

    def reason(self, default: str) -> str:
        """The most telling of the last lines, without llama.cpp's function name before it."""
        for line in reversed(self.problems):
            reason = re.sub(r"^[\w:~]+: (error loading model: )?", "", line)
            if not reason.startswith("failed to load model"):
                return reason
        return default


log = Log()
_started = threading.Lock()
_ready = False


def start_backend() -> None:
    """Start llama.cpp's backend once in this process and take over its log."""
    global _ready
    with _started:
        if not _ready:
            c.llama_log_set(log.callback, ctypes.c_void_p(0))
            c.llama_backend_init()
            _ready = True


def fingerprint() -> str:
    """What may change the last bits of a computation: llama-cpp-python's version and the instructions in use."""
    start_backend()
    return f"{llama_cpp.__version__} {c.llama_print_system_info().decode()}"


@contextmanager
def log_lines(listener: Callable[[str], None]) -> Iterator[Callable[[str], str]]:
    """Give each line that llama.cpp logs to `listener`; yields what tells the reason of a failure, or a default."""
    start_backend()
    log.clear()
    log.listener = listener
    try:
        yield log.reason
    finally:
        log.listener = None


def checked_path(path: Path) -> bytes:
    """Refuse what is plainly not a GGUF file before native code sees it."""
    check_gguf(path)
    return os.fsencode(path)


def string_of(read: Any, *args: Any) -> str | None:
    """Read a string through llama.cpp's (buffer, size) -> length convention."""
    size = 256
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = read(*args, buffer, size)
        if length < 0:
            return None
        if length < size:
            return buffer.raw[:length].decode("utf-8", "replace")
        size = length + 1
