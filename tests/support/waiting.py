"""Waiting for another thread, with patience."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 30  # seconds until a test says that something hangs


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)
