"""A folder that appears whole or not at all, whatever happens on the way."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from convert.errors import ConversionError
from convert.staging import need_room, staged
from sgft_edge.errors import InputError

WRITER = """
import sys
from pathlib import Path
from convert.staging import staged

with staged(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half of it")
    print("begun", flush=True)
    sys.stdin.readline()
    (folder / "whole").write_text("all of it")
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def break_off(out: Path, error: BaseException, force: bool = False) -> None:
    """Write a file and fail."""
    before = names(out) if out.exists() else None
    with staged(out, force) as folder:
        (folder / "half").write_text("half of it")
        assert (names(out) if out.exists() else None) == before
        raise error


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for `out` and nothing else."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.fixture
def writer(place: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has begun to write `place / "out"` and waits for a line."""
    command = [sys.executable, "-c", WRITER, str(place / "out")]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    yield process
    process.kill()
    process.communicate()


def test_the_folder_appears_whole(place: Path) -> None:
    out = place / "out"
    with staged(out) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("text")
        assert folder.parent == place  # on the same disk, so that it can be renamed
        assert not out.exists()
    assert (out / "deep" / "file").read_text() == "text"
    assert names(place) == {"out"}


def test_missing_parents_are_made(place: Path) -> None:
    with staged(place / "a" / "b" / "out") as folder:
        (folder / "file").touch()
    assert names(place / "a" / "b") == {"out"}


def test_a_relative_path_is_where_the_run_began(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    with staged(Path("out")) as folder:
        monkeypatch.chdir("/")
        (folder / "file").touch()
    assert names(place) == {"out"}


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)])
def test_nothing_appears_when_the_block_fails(place: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        break_off(place / "out", error)
    assert not names(place)


def test_a_refusal_by_the_disk_is_one_line(place: Path) -> None:
    with pytest.raises(ConversionError) as caught:
        break_off(place / "out", OSError(28, "No space left on device"))
    assert str(caught.value) == f"--out {place / 'out'}: cannot write there: No space left on device"
    assert not names(place)


def test_a_folder_that_is_there_is_kept(place: Path) -> None:
    out = place / "out"
    out.mkdir()
    (out / "precious").touch()
    with pytest.raises(InputError, match=r"--out .*out: expected a folder .* --force replaces it"), staged(out):
        pytest.fail("it began")
    assert names(place) == {"out"}
    assert names(out) == {"precious"}


def test_a_file_that_is_there_is_kept(place: Path) -> None:
    out = place / "out"
    out.write_text("precious")
    with pytest.raises(InputError, match=r"--out .*out: expected a folder"), staged(out):
        pytest.fail("it began")
    assert out.read_text() == "precious"


def test_an_empty_folder_may_be_there(place: Path) -> None:
    (place / "out").mkdir()
    with staged(place / "out") as folder:
        (folder / "file").touch()
    assert names(place / "out") == {"file"}


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_force_replaces(place: Path, tmp_path: Path, kind: str) -> None:
    out, elsewhere = place / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    if kind == "folder":
        out.mkdir()
        (out / "old").touch()
    elif kind == "file":
        out.write_text("old")
    else:
        out.symlink_to(elsewhere)
    with staged(out, force=True) as folder:
        (folder / "new").touch()
    assert names(out) == {"new"}
    assert names(place) == {"out"}
    assert names(elsewhere) == {"precious"}


def test_force_keeps_the_old_folder_until_the_new_one_is_whole(place: Path) -> None:
    out = place / "out"
    out.mkdir()
    (out / "old").touch()
    with pytest.raises(ValueError, match="broken"):
        break_off(out, ValueError("broken"), force=True)
    assert names(out) == {"old"}
    assert names(place) == {"out"}


def test_what_a_killed_run_left_is_cleared_by_the_next(place: Path, writer: subprocess.Popen[str]) -> None:
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    left = names(place)
    assert left
    assert "out" not in left
    with staged(place / "out") as folder:
        assert not names(folder)
        (folder / "file").touch()
    assert names(place / "out") == {"file"}
    assert names(place) == {"out"}


def test_of_two_runs_the_second_is_refused(place: Path, writer: subprocess.Popen[str]) -> None:
    with pytest.raises(ConversionError) as caught, staged(place / "out"):
        pytest.fail("it began")
    assert str(caught.value) == f"--out {place / 'out'}: another export writes there now"
    with pytest.raises(ConversionError, match="another export"), staged(place / "out", force=True):
        pytest.fail("it began, once the first refusal had taken the lock away")
    writer.communicate("go on\n", timeout=30)
    assert writer.returncode == 0
    assert names(place / "out") == {"half", "whole"}
    assert names(place) == {"out"}


def test_runs_for_other_folders_go_on_side_by_side(place: Path, writer: subprocess.Popen[str]) -> None:
    with staged(place / "other") as folder:
        (folder / "file").touch()
    writer.communicate("go on\n", timeout=30)
    assert names(place) == {"out", "other"}


@pytest.mark.parametrize("parent", ["file", "file/deeper"])
def test_a_parent_that_is_a_file(place: Path, parent: str) -> None:
    (place / "file").write_text("precious")
    with (
        pytest.raises(ConversionError, match=r"--out .*out: cannot write there: ") as caught,
        staged(place / parent / "out"),
    ):
        pytest.fail("it began")
    assert "\n" not in str(caught.value)
    assert (place / "file").read_text() == "precious"


def test_a_name_that_is_too_long(place: Path) -> None:
    with pytest.raises(ConversionError, match="File name too long"), staged(place / ("x" * 254)):
        pytest.fail("it began")
    assert not names(place)


@pytest.fixture(params=[0o555, 0o000], ids=["unwritable", "closed"])
def nobodys(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder in which this process may not write, or not even look; root, who may do all, is nobody for as long."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(request.param)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_a_parent_that_cannot_be_written(nobodys: Path) -> None:
    with pytest.raises(ConversionError) as caught, staged(nobodys / "out"):
        pytest.fail("it began")
    assert str(caught.value) == f"--out {nobodys / 'out'}: cannot write there: Permission denied"


def test_room(place: Path) -> None:
    need_room(place, 1)
    with pytest.raises(ConversionError) as caught:
        need_room(place / "..", 10**18)
    assert str(caught.value).startswith(f"needs about {10**12} MB of free space in {place}, found ")
    assert str(caught.value).endswith(" MB: free some, or choose another --out")
