"""How many threads torch may take."""

from __future__ import annotations

import os

import torch


def heed_thread_limit() -> None:
    """Hold torch to OMP_THREAD_LIMIT: with fewer threads than it asks for, MKL leaves parts of a result uncomputed."""
    limit = os.environ.get("OMP_THREAD_LIMIT", "")
    if limit.isdecimal() and 0 < int(limit) < torch.get_num_threads():
        torch.set_num_threads(int(limit))
