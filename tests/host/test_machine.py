"""What /proc and /sys say about machines and containers unlike this one."""

import os
from pathlib import Path

import pytest

from sgft_edge.host import machine

GB = 1_000_000_000


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = "MemTotal:       8000000 kB\nMemFree:         100000 kB\nMemAvailable:   4000000 kB\n"


def test_this_machine():
    assert machine.cpu_name()
    assert 1 <= machine.physical_cores() <= machine.logical_cores() <= (os.cpu_count() or 1)
    memory = machine.memory()
    assert 0 < memory.free <= memory.most <= memory.total
    assert memory.available is not None


def test_memory_without_a_limit(tmp_path):
    root = write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cgroup.procs": ""})
    assert machine.memory(root) == machine.Memory(8_192_000_000, 4_096_000_000)


@pytest.mark.parametrize("group", ["/", "/app", "/host/path/that/is/not/mounted"])
def test_memory_limit_of_version_2(tmp_path, group):
    folder = "sys/fs/cgroup" + ("/app" if group == "/app" else "")
    files = {"memory.max": "512000000\n", "memory.current": "300000000\n", "memory.stat": "anon 1\ninactive_file 9\n"}
    root = write(tmp_path, {f"{folder}/{name}": text for name, text in files.items()})
    write(root, {"proc/meminfo": MEMINFO, "proc/self/cgroup": f"0::{group}\n"})
    memory = machine.memory(root)
    assert (memory.limit, memory.limit_used) == (512_000_000, 300_000_000 - 9)
    assert memory.most == 512_000_000
    assert memory.free == 212_000_009


def test_the_tightest_group_counts(tmp_path):
    files = {"app/memory.max": "max", "memory.max": str(2 * GB), "memory.current": "0", "app/inner/memory.max": str(GB)}
    root = write(tmp_path, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    write(root, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/app/inner\n"})
    assert machine.memory(root).limit == GB


def test_groups_of_version_1(tmp_path):
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "4:memory:/job\n2:cpu,cpuacct:/job\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1000000000\n",
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "400000000\n",
        "sys/fs/cgroup/memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 100000000\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "250000\n",
        "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
    }
    root = write(tmp_path, files)
    assert machine.memory(root).free == 700_000_000
    assert machine.core_quota(root) == 2.5


def test_core_quota_of_version_2(tmp_path):
    root = write(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"})
    assert machine.core_quota(root) is None
    write(root, {"sys/fs/cgroup/cpu.max": "150000 100000\n"})
    assert machine.core_quota(root) == 1.5


def test_cpu(tmp_path):
    intel = "processor\t: 0\nmodel name\t: Intel(R) N100\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\nmodel name\t: no\n"
    root = write(tmp_path / "intel", {"proc/cpuinfo": intel})
    assert machine.cpu_name(root) == "Intel(R) N100"
    assert machine.cpu_features(root) == ("fpu", "avx2", "fma")
    arm = {
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp\n",
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    }
    root = write(tmp_path / "arm", arm)
    assert machine.cpu_name(root) == "Raspberry Pi 5 Model B Rev 1.0"
    assert machine.cpu_features(root) == ("fp", "asimd", "asimddp")


def test_gpus(tmp_path):
    assert machine.gpus(tmp_path) == ()
    nvidia = {"proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA RTX A2000\nIRQ: 100\n"}
    assert machine.gpus(write(tmp_path / "nvidia", nvidia)) == ("NVIDIA RTX A2000",)
    assert machine.gpus(write(tmp_path / "container", {"dev/nvidia0": "", "dev/nvidiactl": ""})) == ("NVIDIA GPU",)
    assert machine.gpus(write(tmp_path / "amd", {"dev/kfd": ""})) == ("AMD GPU",)
