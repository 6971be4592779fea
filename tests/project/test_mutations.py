"""Damaged model files: the benchmark's mutants, some of them opened."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.mutations import KINDS, mutants

ROOT = Path(__file__).parents[2]


def test_mutants_depend_on_the_seed_alone_and_are_of_every_kind(tmp_path: Path) -> None:
    def digests(name: str, seed: int) -> list[str]:
        made = mutants(tmp_path / name, len(KINDS), len(KINDS), seed)
        assert Counter(one.kind for one in made) == {kind.__name__: 2 for kind in KINDS}
        return [hashlib.sha256(Path(one.path).read_bytes()).hexdigest() for one in made]

    first = digests("first", 3)
    assert first == digests("again", 3)
    assert first != digests("other", 4)


@pytest.mark.slow
def test_no_damaged_file_ends_the_process_that_opens_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.mutations", "--models", "30", "--adapters", "30", "--seed", "5"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert "models: 30: refused" in run.stdout
    assert "crash 0, hang 0, traceback 0, more than a line 0" in run.stdout
