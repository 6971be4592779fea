"""A disk that is full, read-only or taken away under every command that writes files, and two commands at once.

usage: PYTHONPATH=tests/support python -m benchmarks.full_disk [--steps 12] [--seed 0] [--only NAME,...]

Each command runs on a disk of its own (a tmpfs, mounted by `unshare` without root), whose size goes in steps from what
lies there before to twice what the command needs; then on one that is read-only; then on a folder that is deleted at
a random moment; then twice at the same time. It must end well, or with status 1 and one line; nothing may be half,
lost, mixed or left behind; and once there is room it must go on to its end. Exit status 1 where it was not so.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from benchmarks.jobs import JOBS, Job, Wrong, environment, fresh, left_behind, make_base, make_inputs

_ON_A_DISK = """
seed=$1 disk=$2 after=$3 size=$4 mode=$5; shift 5
mount -t tmpfs -o size=${size}k none "$disk" && cp -a "$seed/." "$disk/" || exit 99
[ "$mode" = rw ] || mount -o remount,ro "$disk" || exit 99
cd / && "$@"; status=$?
df -k --output=used "$disk" | tail -1 > "$after.used"
cp -a "$disk/." "$after/" && exit $status
"""
_PLENTY = 1_000_000  # KiB
_PAGE = 4  # KiB
_ERROR = re.compile(r"sgft-edge: error: \S")
_KEPT = re.compile(r"left behind: user/models/\.split\.joined")  # whole parts, for the next pull


class Disks:
    """One job, and the disks that it is put on."""

    def __init__(self, job: Job, inputs: Path, folder: Path) -> None:
        self.job, self.inputs, self.disk = job, inputs, folder / "disk"
        self._seed, self._after = folder / "seed", folder / "after"
        self.disk.mkdir(parents=True)
        job.prepare(inputs, self.disk)
        if job.before is not None:
            self._run()
        self.disk.rename(self._seed)
        self.disk.mkdir()
        self.outcomes: Counter[str] = Counter()

    def of_size(self, kilobytes: int, mode: str = "rw") -> Wrong:
        """What is wrong after a run on a disk that holds so much, and after one that has room."""
        done = self._on_a_disk(kilobytes, mode)
        self.outcomes["refused" if done.returncode else "ended well"] += 1
        wrong = self._told(done, (1,))
        shutil.rmtree(self.disk)
        shutil.copytree(self._after, self.disk, symlinks=True)  # looked at by the paths that it had
        wrong += self._look(False)
        wrong += [fault for fault in left_behind(self.disk) if not _KEPT.match(fault)]
        if mode == "rw":
            wrong += [f"with room again: {fault}" for fault in [*self._told(self._run(), ()), *self._look(True)]]
        self._empty()
        return wrong

    def sizes(self, steps: int) -> list[int]:
        """Sizes in KiB from what is there before to more than is needed."""
        self._on_a_disk(_PLENTY, "ro")
        before = self._used()
        done = self._on_a_disk(_PLENTY, "rw")
        if done.returncode:
            raise click.ClickException(f"{self.job.name} does not run: {done.stderr[-500:]}")
        room = 2 * (self._used() - before) + before // 2 + 10 * _PAGE
        return [before + _PAGE * round(room * step / (steps - 1) / _PAGE) for step in range(steps)]

    def taken_away(self, delay: float) -> Wrong:
        """What is wrong where the folder is deleted so many seconds after the start."""
        fresh(self.disk, self._seed)
        process = self._start()
        time.sleep(delay)
        shutil.rmtree(self.disk, ignore_errors=True)
        said = process.communicate()[1]
        done = subprocess.CompletedProcess([], process.returncode, "", said)
        self.outcomes["refused" if done.returncode else "ended well"] += 1
        wrong = self._told(done, (1, 2))  # what was read there may be gone as well
        self.disk.mkdir(exist_ok=True)
        self._empty()
        return wrong

    def twice(self) -> Wrong:
        """What is wrong after two runs at the same time."""
        fresh(self.disk, self._seed)
        both = [self._start(), self._start()]
        ended = [(process.communicate()[1], process.returncode) for process in both]
        wrong: Wrong = []
        for said, status in ended:
            wrong += self._told(subprocess.CompletedProcess([], status, "", said), (1, 2))
            self.outcomes["refused" if status else "ended well"] += 1
        if all(status for _, status in ended):
            wrong.append("neither of the two ended well")
        wrong += self._look(True) + left_behind(self.disk)
        self._empty()
        return wrong

    def length(self) -> float:
        """Seconds of a run in peace."""
        fresh(self.disk, self._seed)
        began = time.perf_counter()
        self._run()
        took = time.perf_counter() - began
        self._empty()
        return took

    def _told(self, done: subprocess.CompletedProcess[str], refusals: tuple[int, ...]) -> Wrong:
        """What is wrong with a status and with what was said."""
        lines = done.stderr.strip().splitlines() or [""]
        if "Traceback" in done.stderr or done.returncode not in (0, *refusals):
            return [f"ended with {done.returncode}: {lines[-1][:200]}"]
        if done.returncode and (not _ERROR.match(lines[-1]) or sum(bool(_ERROR.match(line)) for line in lines) > 1):
            return [f"said: {lines[-1][:200]}"]
        return []

    def _look(self, done: bool) -> Wrong:
        try:
            return self.job.look(self.inputs, self.disk, done)
        except (OSError, ValueError, KeyError) as e:
            return [f"{type(e).__name__}: {e}"]

    def _empty(self) -> None:
        shutil.rmtree(self.disk)
        self.disk.mkdir()

    def _used(self) -> int:
        return int(self._after.with_name("after.used").read_text())

    def _on_a_disk(self, kilobytes: int, mode: str) -> subprocess.CompletedProcess[str]:
        if self._after.exists():
            shutil.rmtree(self._after)
        self._after.mkdir()
        apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _ON_A_DISK, "sh"]
        places = [str(self._seed), str(self.disk), str(self._after), str(kilobytes), mode]
        done = subprocess.run(
            [*apart, *places, *self._command()], input=self._stdin(), capture_output=True, text=True,
            errors="replace", env=environment(self.inputs, self.disk),
        )  # fmt: skip
        if done.returncode == 99:
            raise click.ClickException(f"no disk of its own can be mounted here: {done.stderr}")
        return done

    def _run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(), input=self._stdin(), capture_output=True, text=True, errors="replace",
            env=environment(self.inputs, self.disk), cwd="/",
        )  # fmt: skip

    def _start(self) -> subprocess.Popen[str]:
        told = self.inputs / "stdin"
        told.write_text(self._stdin())
        with told.open() as source:
            return subprocess.Popen(
                self._command(), stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                errors="replace", env=environment(self.inputs, self.disk), cwd="/",
            )  # fmt: skip

    def _command(self) -> list[str]:
        return self.job.arguments(self.inputs, self.disk)

    def _stdin(self) -> str:
        return self.job.stdin.replace("DISK", str(self.disk))


def campaign(disks: Disks, steps: int, seed: int) -> dict[str, Wrong]:
    """What was wrong with each kind of disk."""
    draw = random.Random(f"{seed} {disks.job.name}")
    found: dict[str, Wrong] = {}
    found["full"] = [f"{size} KiB: {fault}" for size in disks.sizes(steps) for fault in disks.of_size(size)]
    found["read-only"] = disks.of_size(_PLENTY, "ro")
    length = disks.length()
    found["taken away"] = [fault for _ in range(steps // 2) for fault in disks.taken_away(draw.uniform(0, length))]
    found["two at once"] = [fault for _ in range(max(1, steps // 4)) for fault in disks.twice()]
    return found


@click.command()
@click.option("--steps", default=12, show_default=True, help="Sizes of the disk; half as many times it is taken away.")
@click.option("--seed", default=0, show_default=True)
@click.option("--only", default="", metavar="NAME,...", help=f"Of {', '.join(job.name for job in JOBS)}.")
def main(steps: int, seed: int, only: str) -> None:
    """Print for each command how its runs ended and what was wrong."""
    chosen = [job for job in JOBS if not only or job.name in only.split(",")]
    failed = False
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name, "inputs")
        inputs.mkdir()
        make_inputs(inputs)
        if any(job.slow for job in chosen):
            make_base(inputs)
        for job in chosen:
            disks = Disks(job, inputs, Path(name, job.name.replace("/", "")))
            found = campaign(disks, steps, seed)
            ended = ", ".join(f"{count} {how}" for how, count in sorted(disks.outcomes.items()))
            wrong = ", ".join(f"{kind} {len(faults)}" for kind, faults in found.items())
            print(f"{job.name}: {disks.outcomes.total()} runs ({ended}); wrong: {wrong}")
            for kind, faults in found.items():
                for fault in faults[:6]:
                    print(f"   {kind}: {fault}")
            sys.stdout.flush()
            failed = failed or any(found.values())
    sys.exit(failed)


if __name__ == "__main__":
    main()
