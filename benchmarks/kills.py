"""Kill every command that writes files with SIGKILL, at random moments, and look what is left.

usage: PYTHONPATH=tests/support python -m benchmarks.kills [--kills 50] [--seed 0] [--only NAME,...]

A quarter of the moments are drawn from the whole length of a run, the others from the part in which it writes. After
each kill the files are looked at; then the command runs once more, to its end, and they are looked at again: nothing
may be half, lost, doubled or left behind. Exit status 1 where anything was.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from benchmarks.jobs import JOBS, Job, Wrong, environment, fresh, left_behind, make_base, make_inputs

_LATER = 7200  # seconds: what a killed run left may be cleared away by one that starts so much later


class Campaign:
    """One job in its folder: `length` is that of a run in seconds, `writes` when it began to write."""

    def __init__(self, job: Job, inputs: Path, folder: Path) -> None:
        self.job, self.inputs, self.disk, self._seed = job, inputs, folder / "disk", folder / "seed"
        self.disk.mkdir(parents=True)
        job.prepare(inputs, self.disk)
        if job.before is not None:
            self._finish()
        self.disk.rename(self._seed)
        fresh(self.disk, self._seed)
        self.length, self.writes = self._measured()
        self.landed: Counter[str] = Counter()

    def kill(self, delay: float) -> Wrong:
        """What is wrong after a kill so many seconds after the start, or after the next run."""
        fresh(self.disk, self._seed)
        process = self._start()
        try:
            process.wait(delay)
            self.landed["after the end"] += 1
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            changed = _stamps(self.disk) != _stamps(self._seed)
            self.landed["while it wrote" if changed else "before it wrote"] += 1
        wrong = [f"after the kill: {fault}" for fault in self._look(False)]
        for path in self.disk.rglob(".*"):
            before = path.lstat().st_mtime - _LATER
            os.utime(path, (before, before), follow_symlinks=False)
        wrong += self._finish()
        found = self._look(True) + left_behind(self.disk)
        return wrong + [f"after the next run: {fault}" for fault in found]

    def _look(self, done: bool) -> Wrong:
        try:
            return self.job.look(self.inputs, self.disk, done)
        except (OSError, ValueError, KeyError) as e:
            return [f"{type(e).__name__}: {e}"]

    def _start(self) -> subprocess.Popen[str]:
        told = self.inputs / "stdin"
        told.write_text(self.job.stdin.replace("DISK", str(self.disk)))
        with told.open() as source:
            return subprocess.Popen(
                self.job.arguments(self.inputs, self.disk), stdin=source, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True, env=environment(self.inputs, self.disk), cwd=self.inputs,
            )  # fmt: skip

    def _finish(self) -> Wrong:
        process = self._start()
        _, said = process.communicate()
        last = said.strip().splitlines()[-1:] or ["nothing was said"]
        return [f"the next run ended with {process.returncode}: {last[0]}"] if process.returncode else []

    def _measured(self) -> tuple[float, float]:
        before = _stamps(self.disk)
        began, writes = time.perf_counter(), 0.0
        process = self._start()
        while process.poll() is None:
            time.sleep(0.005)
            if not writes and _stamps(self.disk) != before:
                writes = time.perf_counter() - began
        _, said = process.communicate()
        if process.returncode:
            raise click.ClickException(f"{self.job.name} does not run: {said[-500:]}")
        return time.perf_counter() - began, writes


def _stamps(folder: Path) -> list[tuple[str, int]]:
    """Names and sizes of all files, by their paths in the folder."""
    found = []
    for path in folder.rglob("*"):
        try:
            found.append((str(path.relative_to(folder)), path.lstat().st_size if path.is_file() else 0))
        except OSError:  # it has just gone
            continue
    return sorted(found)


@click.command()
@click.option("--kills", default=50, show_default=True, help="Of each command.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", default="", metavar="NAME,...", help=f"Of {', '.join(job.name for job in JOBS)}.")
def main(kills: int, seed: int, only: str) -> None:
    """Print for each command where the kills landed and what was wrong after them."""
    chosen = [job for job in JOBS if not only or job.name in only.split(",")]
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name, "inputs")
        inputs.mkdir()
        make_inputs(inputs)
        if any(job.slow for job in chosen):
            make_base(inputs)
        for job in chosen:
            campaign = Campaign(job, inputs, Path(name, job.name.replace("/", "")))
            draw = random.Random(f"{seed} {job.name}")
            wrong: Counter[str] = Counter()
            for number in range(kills):
                first = 0.0 if number % 4 == 0 else campaign.writes
                wrong.update(campaign.kill(draw.uniform(first, campaign.length)))
            landed = ", ".join(f"{count} {where}" for where, count in sorted(campaign.landed.items()))
            print(f"{job.name}: {kills} kills in {campaign.length:.1f} s ({landed}); wrong: {sum(wrong.values())}")
            for fault, count in wrong.most_common(8):
                print(f"   {count} x {fault}")
            sys.stdout.flush()
            total += wrong
    sys.exit(bool(total))


if __name__ == "__main__":
    main()
