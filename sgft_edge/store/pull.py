"""Fetch a model file into the models folder, so that what lies there under its final name is whole and checked.

All work is done in `.NAME.part/` beside the target: check the size and SHA-256, fsync, rename. Meanwhile `.NAME.lock`
is held, so a second pull of the same model waits and then finds the file; and whatever lies in `.NAME.part/` when a
pull gets the lock was left by a dead one. Only `.NAME.joined/` is taken up again: whole parts of a split file, with a
record (see parts.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sgft_edge.errors import ModelError, PullError
from sgft_edge.host.files import FULL, models_folder, write_atomically
from sgft_edge.host.locks import hold
from sgft_edge.store.delivery import Delivery, one_line
from sgft_edge.store.digests import file_digest, record_path, remember_digest, trusted_digest
from sgft_edge.store.header import check_gguf
from sgft_edge.store.manifest import Entry, package_models
from sgft_edge.store.parts import RECORD, from_wheels
from sgft_edge.store.places import Accept
from sgft_edge.store.splits import announced, names

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and the bytes in all, None while the total is unknown."""

_POLL_SECONDS = 0.2


def pull(entry: Entry, progress: Progress | None = None, accept: Accept = lambda entry, file: None) -> Path:
    """Fetch the entry's file from the first of its sources that delivers it; return its path.

    A file that is already in place and has the right digest is not fetched again. An entry without a SHA-256 is
    trusted on first use: the digest seen is recorded, and later pulls and `verify` compare with it. `progress` is
    called from another thread, a few times a second, `accept` before the file appears under its name. Raises
    PullError, which says what each source answered.
    """
    folder = models_folder()
    target = folder / entry.file
    shipped = package_models() / entry.file
    if not entry.own and _is_intact(entry, shipped):
        return shipped
    refusals = []
    try:
        with _alone(folder, entry) as (staging, joined):
            if not _is_intact(entry, target):
                for source in entry.sources:
                    try:
                        _pull_from(Delivery(entry, staging, joined, source, entry.bytes), target, progress, accept)
                        break
                    except PullError as e:
                        refusals.append(f"{source}: {e}")
                else:
                    raise PullError(f"cannot pull {entry.name}: {'; '.join(refusals) or 'it has no sources'}")
            _clear(joined)
    except OSError as e:
        hint = ": free some space, or set SGFT_EDGE_MODELS to another folder" if e.errno in FULL else ""
        raise PullError(f"cannot write to {folder}: {e.strerror or e}{hint}") from e
    return target


def discard(entry: Entry) -> bool:
    """Delete the entry's file from the models folder, its record and what a dead pull left; say if a file was there.

    Raises ModelError where the folder does not allow it.
    """
    folder = models_folder()
    if not folder.is_dir():
        return False
    try:
        with _alone(folder, entry) as (_, joined):
            _clear(joined)
            found = (folder / entry.file).is_file()
            (folder / entry.file).unlink(missing_ok=True)
            record_path(entry).unlink(missing_ok=True)
    except OSError as e:
        raise ModelError(f"cannot delete {entry.file} in {folder}: {e.strerror or e}") from e
    return found


def _pull_from(delivery: Delivery, target: Path, progress: Progress | None, accept: Accept) -> None:
    """Put what a source brings in its place, once it is checked; what is wrong with it is not kept anywhere."""
    entry = delivery.entry
    _clear(delivery.staging)
    delivery.staging.mkdir()
    kind, _, place = delivery.source.partition(":")
    with _watched(delivery, progress):
        fetched = _FETCHERS[kind](place, delivery)
    try:
        digest = _check(fetched, delivery)
        _ask(accept, fetched, entry)
    except PullError:
        _clear(fetched.parent)
        raise
    with fetched.open("rb+") as handle:
        os.fsync(handle.fileno())
    fetched.replace(target)
    remember_digest(target, digest)
    record = {"file": entry.file, "bytes": target.stat().st_size, "sha256": digest, "source": delivery.source}
    record |= {**delivery.origin, "pulled_at": datetime.now(UTC).isoformat(timespec="seconds")}
    write_atomically(record_path(entry), json.dumps(record, indent=1) + "\n")


def _check(fetched: Path, delivery: Delivery) -> str:
    """Return the SHA-256 of the fetched file; PullError where the file is not the one that the entry names."""
    entry, size = delivery.entry, fetched.stat().st_size
    if entry.bytes not in (None, size):
        raise PullError(f"expected {entry.bytes} bytes, found {size}")
    try:
        check_gguf(fetched)
    except ModelError as e:
        raise PullError(str(e).replace(str(fetched), "what came")) from e
    with fetched.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    expected = trusted_digest(entry) or delivery.published_sha256 or digest
    if digest != expected:
        hint = ""
        if not entry.sha256 and expected != delivery.published_sha256:
            hint = f" as in the first pull; to trust the new file, `sgft-edge models rm {entry.name}` and pull again"
        raise PullError(f"expected sha256 {expected}, found {digest}{hint}")
    return digest


def _ask(accept: Accept, fetched: Path, entry: Entry) -> None:
    try:
        if (count := announced(fetched)) > 1:
            raise ModelError(
                f"expected a model in one file, found part 1 of {count}: fetch all parts into one folder, then "
                f"`sgft-edge models add NAME {names(entry.name, count)[0]}`"
            )
        accept(entry, fetched)
    except ModelError as e:
        raise PullError(one_line(str(e).replace(str(fetched), "what came"))) from e


def _is_intact(entry: Entry, path: Path) -> bool:
    if not path.is_file():
        return False
    expected = trusted_digest(entry)
    return expected is None or file_digest(path) == expected


def _from_hub(place: str, delivery: Delivery) -> Path:
    """Fetch OWNER/REPO/FILE with huggingface_hub, which honours HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.

    A connection that drops is taken up where it broke off, as far as the installed release does that. A later pull
    starts anew: so does the library since 1.18 (https://github.com/huggingface/huggingface_hub/pull/4306).
    """
    try:
        import huggingface_hub as hub
        from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    except ImportError as e:
        raise PullError("needs huggingface_hub: run `pip install 'sgft-edge[hub]'`") from e
    owner, repo, path = place.split("/", 2)
    quiet = are_progress_bars_disabled()
    disable_progress_bars()  # ours takes their place
    try:
        about = hub.get_hf_file_metadata(hub.hf_hub_url(f"{owner}/{repo}", path))
        delivery.bytes = delivery.bytes or about.size
        delivery.need_room(delivery.bytes)
        delivery.origin["commit"] = str(about.commit_hash)
        if re.fullmatch(r"[0-9a-f]{64}", about.etag or ""):  # the hub's ETag of a large file is its SHA-256
            delivery.published_sha256 = about.etag
        fetched = hub.hf_hub_download(
            f"{owner}/{repo}", path, revision=about.commit_hash, local_dir=delivery.staging / "hub"
        )
    except PullError:
        raise
    except Exception as e:  # its releases use requests, httpx or httpx2, each with an error tree of its own
        raise PullError(one_line(e)) from e
    finally:
        if not quiet:
            enable_progress_bars()
    return Path(fetched)


def _from_file(place: str, delivery: Delivery) -> Path:
    original = Path(place).expanduser()
    fetched = delivery.staging / delivery.entry.file
    try:
        delivery.bytes = original.stat().st_size
        delivery.need_room(delivery.bytes)
        shutil.copyfile(original, fetched)
    except OSError as e:
        raise PullError(e.strerror or str(e)) from e
    return fetched


_FETCHERS: dict[str, Callable[[str, Delivery], Path]] = {"hf": _from_hub, "pypi": from_wheels, "file": _from_file}


@contextlib.contextmanager
def _watched(delivery: Delivery, progress: Progress | None) -> Iterator[None]:
    """Report what has arrived, again and again until the block ends."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        most = 0
        while not done.wait(_POLL_SECONDS):
            most = max(most, delivery.arrived())  # between two parts it can fall by what a wheel has around them
            progress(min(most, delivery.bytes or most), delivery.bytes)

    watcher = threading.Thread(target=watch, name="sgft-edge-pull-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    whole = delivery.bytes or delivery.arrived()
    progress(whole, whole)


@contextlib.contextmanager
def _alone(folder: Path, entry: Entry) -> Iterator[tuple[Path, Path]]:
    """Wait until no other process works on the entry; yield the paths of its folders for staging and joined parts.

    The first is absent before and after, the second holds whole parts or is absent. The lock file stays: were it
    removed, two waiters could lock two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging, joined = folder / f".{entry.name}.part", folder / f".{entry.name}.joined"
    with (folder / f".{entry.name}.lock").open("ab") as handle:
        hold(handle, wait=True)
        _sweep(staging, joined)
        try:
            yield staging, joined
        finally:
            _sweep(staging, joined)


def _sweep(staging: Path, joined: Path) -> None:
    _clear(staging)
    if not (joined / RECORD).is_file():
        _clear(joined)


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
