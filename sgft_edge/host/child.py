"""Modules of this package that run in a process of their own, with JSON on their standard input and output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgft_edge.errors import EngineError


@dataclass(frozen=True, slots=True)
class Ended:
    """What a child wrote to stdout and stderr, and its exit status.

    That is minus the number of the signal that ended it, or None where its time was up.
    """

    output: str
    errors: str
    status: int | None


def watch_child(
    module: str, given: object = None, timeout_s: float | None = None, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run `python -m module` on `given` to its end, whatever that is; `environment` is laid over this process's.

    Raises `EngineError` where the system starts no process.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(given),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        return Ended(_text(e.stdout), _text(e.stderr), None)
    except OSError as e:
        raise EngineError(f"{module} cannot be started: {e.strerror or e}") from e
    return Ended(done.stdout, done.stderr, done.returncode)


def run_child(module: str, given: object = None, timeout_s: float | None = None) -> Any:
    """What `python -m module` writes when it reads `given`.

    Raises `EngineError` with the last line of its stderr, or with what ended it.
    """
    done = watch_child(module, given, timeout_s)
    if done.status is None:
        raise EngineError(f"{module} did not end within {timeout_s:g} s: a GPU driver may hang")
    if done.status < 0:
        raise EngineError(_why_ended(module, -done.status))
    try:
        if done.status == 0:
            return json.loads(done.output)
    except ValueError:
        pass
    lines = [line.strip() for line in done.errors.splitlines() if line.strip()]
    raise EngineError(lines[-1] if lines else f"{module} ended with status {done.status} and gave no reason")


def signal_name(number: int) -> str:
    """A signal as it is called, such as SIGABRT."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _why_ended(module: str, number: int) -> str:
    name = signal_name(number)
    reasons = {
        "SIGILL": "this build of llama.cpp uses instructions that this CPU lacks: build it on this machine",
        "SIGKILL": "most likely the system ran out of memory: take a smaller model",
    }
    return f"{module} was ended by {name}: {reasons.get(name, 'llama.cpp failed')}"


def _text(written: bytes | str | None) -> str:
    """What `TimeoutExpired` has of a pipe: bytes, even of one that was opened as text."""
    return written.decode("utf-8", "replace") if isinstance(written, bytes) else written or ""
