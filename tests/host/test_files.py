"""Files and folders that appear whole, and one process at a time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sgft_edge.errors import InputError, SgftError
from sgft_edge.host.files import changing, refusal, write_atomically
from sgft_edge.host.folders import appearing
from sgft_edge.host.locks import alone

HOLDER = """
import sys
from pathlib import Path
from sgft_edge.host.locks import alone

with alone(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    sys.stdin.readline()
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_killed_writers_left_is_cleared_once_it_is_old(tmp_path: Path) -> None:
    old, fresh, other = (tmp_path / name for name in (".a.json.0123abcd", ".a.json.4567cdef", ".b.json.0123abcd"))
    for path in (old, fresh, other):
        path.write_text("half")
    before = time.time() - 4000
    os.utime(old, (before, before))
    os.utime(other, (before, before))
    write_atomically(tmp_path / "a.json", "whole")
    assert names(tmp_path) == {"a.json", fresh.name, other.name}


def test_a_place_is_held_by_one_process_until_it_ends(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError), alone(lock, wait=False):
        pytest.fail("two hold it")
    holder.kill()
    holder.communicate()
    with alone(lock, wait=False):
        assert lock.exists()
    assert not lock.exists()


def test_of_those_who_wait_one_goes_on_at_a_time(tmp_path: Path) -> None:
    counted, place = tmp_path / "count", tmp_path / "new" / "file"
    counted.write_text("0")

    def count() -> None:
        for _ in range(20):
            with changing(place):
                value = int(counted.read_text())
                time.sleep(0.0005)
                counted.write_text(str(value + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.read_text() == "80"
    assert names(place.parent) == set()


def test_a_folder_that_was_set_aside_is_put_back(tmp_path: Path) -> None:
    """As a kill between the two renames leaves it."""
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "good").touch()
    (tmp_path / ".out.part").mkdir()
    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "out") as work:
        assert 1 / len(names(work))
    assert names(tmp_path) == {"out"}
    assert names(tmp_path / "out") == {"good"}


def test_a_folder_that_cannot_take_its_place_leaves_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "good").touch()
    plain = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.name == ".out.part":
            raise OSError(errno.EIO, "Input/output error")
        return plain(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output"), appearing(out):
        pass
    assert names(tmp_path) == {"out"}
    assert names(out) == {"good"}


@pytest.mark.parametrize(
    ("number", "status", "hint"),
    [(errno.ENOSPC, 1, True), (errno.EROFS, 1, False), (errno.EISDIR, 2, False), (errno.EACCES, 2, False)],
)
def test_a_broken_disk_is_a_failure_and_a_bad_name_wrong_usage(number: int, status: int, hint: bool) -> None:
    error = refusal("cannot write x", OSError(number, os.strerror(number)))
    assert error.exit_status == status
    assert isinstance(error, InputError) == (status == 2)
    assert isinstance(error, SgftError)
    assert str(error).startswith(f"cannot write x: {os.strerror(number)}")
    assert str(error).endswith("make room, then run it again") == hint
