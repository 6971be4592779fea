"""torch computes rightly under OMP_THREAD_LIMIT."""

from __future__ import annotations

import os
import subprocess
import sys

SOLVE = """
import torch
from convert.threads import heed_thread_limit
heed_thread_limit()
matrix = torch.randn(300, 300, dtype=torch.double, generator=torch.Generator().manual_seed(0))
right = torch.ones(300, 80, dtype=torch.double)
print(torch.get_num_threads(), torch.allclose(matrix @ torch.linalg.solve(matrix, right), right))
"""


def threads(**given: str) -> str:
    done = subprocess.run([sys.executable, "-c", SOLVE], env=os.environ | given, capture_output=True, text=True)
    return done.stdout.strip() or done.stderr


def test_a_limit_is_heeded() -> None:
    assert threads(OMP_NUM_THREADS="4", OMP_THREAD_LIMIT="1") == "1 True"
    assert threads(OMP_NUM_THREADS="2", OMP_THREAD_LIMIT="3") == "2 True"
