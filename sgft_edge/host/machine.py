"""The computer that this process runs on: its CPU, memory, GPUs, and what a container leaves of them.

Read from Linux's /proc and /sys; elsewhere what cannot be known is None or empty. `root` is the folder that holds
`proc`, `sys` and `dev`.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MB = 1_000_000  # bytes
_ROOT = Path("/")
_NO_LIMIT = 1 << 60  # control groups of version 1 write "no limit" as a number near 2**63


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of main memory: of the machine, and of the tightest control group with a limit, if there is one.

    `limit_used` leaves out cached file pages, which the kernel gives back when it needs room.
    """

    total: int
    available: int | None
    limit: int | None = None
    limit_used: int | None = None

    @property
    def most(self) -> int:
        """What this process could ever have."""
        return self.total if self.limit is None else min(self.total, self.limit)

    @property
    def free(self) -> int:
        """What it can have now."""
        available = self.total if self.available is None else self.available
        return available if self.limit is None else min(available, self.limit - (self.limit_used or 0))


def cpu_name(root: Path = _ROOT) -> str:
    """The CPU's name, or the board's where the CPU has none (ARM)."""
    if name := _cpuinfo(root).get("model name"):
        return name
    if board := _text(root / "proc/device-tree/model").strip("\0 \n"):
        return board
    if sys.platform == "darwin":
        ask = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def cpu_features(root: Path = _ROOT) -> tuple[str, ...]:
    """Instruction sets as Linux names them, such as avx2 or asimd; empty where the system does not tell."""
    info = _cpuinfo(root)
    return tuple((info.get("flags") or info.get("Features") or "").split())


def logical_cores() -> int:
    """Hardware threads that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def physical_cores() -> int:
    """Cores that this process may run on, counting hyper-threads of one core once where the system tells."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:
        return max((os.cpu_count() or 2) // 2, 1)
    cores = set()
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(topology.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return max(len(cores), 1)


def core_quota(root: Path = _ROOT) -> float | None:
    """CPU time a second that the control groups grant, in cores."""
    quotas = []
    for version, folder in _control_groups("cpu", root):
        if version == 2:
            quota, _, period = _text(folder / "cpu.max").partition(" ")
        else:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.strip().isdigit() and period.strip().isdigit():  # neither "max" nor -1
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory(root: Path = _ROOT) -> Memory:
    """Main memory. Raises `OSError` or `ValueError` where the system does not tell."""
    info = _pairs(_text(root / "proc/meminfo"))
    if "MemTotal" not in info:
        return Memory(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), None)
    available = _kilobytes(info["MemAvailable"]) if "MemAvailable" in info else None
    limits = []
    for version, folder in _control_groups("memory", root):
        limit_file, used_file = (
            ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        limit, used = _text(folder / limit_file).strip(), _text(folder / used_file).strip()
        if limit.isdigit() and int(limit) < _NO_LIMIT:
            cached = _stat(folder, "total_inactive_file") or _stat(folder, "inactive_file")
            limits.append((int(limit), max(int(used or 0) - cached, 0)))
    tightest = min(limits, key=lambda pair: pair[0] - pair[1], default=(None, None))
    return Memory(_kilobytes(info["MemTotal"]), available, *tightest)


def peak_bytes() -> int:
    """This process's peak resident memory: VmHWM, since `getrusage` also counts what forked this process (Linux)."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int | None:
    """This process's resident memory now; None where it cannot be known."""
    pages = _text(Path("/proc/self/statm")).split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else None


def gpus(root: Path = _ROOT) -> tuple[str, ...]:
    """GPUs worth a build of llama.cpp of their own; graphics built into a PC's processor are not."""
    cards = sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    found = [_pairs(_text(card)).get("Model", "NVIDIA GPU") for card in cards]
    if not found and (any(root.glob("dev/nvidia[0-9]*")) or any(root.glob("usr/lib/wsl/lib/libcuda.so*"))):
        found.append("NVIDIA GPU")
    if (root / "dev/kfd").exists():
        found.append("AMD GPU")
    if sys.platform == "darwin" and platform.machine() == "arm64":
        found.append("Apple GPU")
    return tuple(found)


def _control_groups(controller: str, root: Path) -> Iterator[tuple[int, Path]]:
    """Version and folder of each control group that this process is in, from the innermost outwards.

    Inside a container the path in /proc may be the host's, and only the mounted root exists:
    https://man7.org/linux/man-pages/man7/cgroups.7.html
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, group = line.split(":", 2)
        if number == "0":
            version, base = 2, root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            version, base = 1, root / "sys/fs/cgroup" / controller
        else:
            continue
        folder = base / group.strip("/")
        for place in (folder, *folder.parents):
            if place.is_dir():
                yield version, place
            if place == base:
                break


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    return _pairs(_text(root / "proc/cpuinfo").partition("\n\n")[0])


def _pairs(text: str) -> dict[str, str]:
    """What a file of `key: value` lines says."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _stat(folder: Path, key: str) -> int:
    words = (line.split() for line in _text(folder / "memory.stat").splitlines())
    return next((int(value) for name, value in words if name == key), 0)


def _kilobytes(value: str) -> int:
    return int(value.removesuffix("kB")) * 1024


def _text(path: Path) -> str:
    """A file's text, empty where it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
