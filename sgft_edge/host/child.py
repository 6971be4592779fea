"""Modules of this package that run in a process of their own, with JSON on their standard input and output."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from sgft_edge.errors import EngineError


def run_child(module: str, given: object = None, timeout_s: float | None = None) -> Any:
    """What `python -m module` writes when it reads `given`.

    Raises `EngineError` with the last line of its stderr, or with what ended it.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(given),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise EngineError(f"{module} did not end within {timeout_s:g} s: a GPU driver may hang") from e
    if done.returncode < 0:
        raise EngineError(_why_ended(module, -done.returncode))
    try:
        if done.returncode == 0:
            return json.loads(done.stdout)
    except ValueError:
        pass
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    raise EngineError(lines[-1] if lines else f"{module} ended with status {done.returncode} and gave no reason")


def _why_ended(module: str, number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    reasons = {
        "SIGILL": "this build of llama.cpp uses instructions that this CPU lacks: build it on this machine",
        "SIGKILL": "most likely the system ran out of memory: take a smaller model",
    }
    return f"{module} was ended by {name}: {reasons.get(name, 'llama.cpp failed')}"
