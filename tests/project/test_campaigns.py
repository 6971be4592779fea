"""Short runs of the campaigns that docs/reliability.md reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.jobs import JOBS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="signals, and disks of one's own")]
ROOT = Path(__file__).parents[2]


def run(module: str, *options: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support")))
    command = [sys.executable, "-m", f"benchmarks.{module}", *options]
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, env=env)


@pytest.mark.parametrize("name", [job.name for job in JOBS])
def test_kills(name: str) -> None:
    done = run("kills", "--kills", "4", "--seed", "1", "--only", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}: 4 kills in " in done.stdout


@pytest.mark.parametrize("name", [job.name for job in JOBS])
def test_full_disks(name: str) -> None:
    done = run("full_disk", "--steps", "4", "--seed", "1", "--only", name)
    if "no disk of its own can be mounted here" in done.stderr:
        pytest.skip("no disk of its own can be mounted here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{name}: " in done.stdout
