"""SHA-256 of model files: what it is, and for known models what it must be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from sgft_edge.host.files import cache_folder, models_folder, read_json, write_atomically
from sgft_edge.store.manifest import Entry
from sgft_edge.store.splits import parts


def trusted_digest(entry: Entry) -> str | None:
    """Return the SHA-256 that the entry's file must have: the manifest's, else the one that the first pull recorded."""
    if entry.sha256:
        return entry.sha256
    digest = read_json(record_path(entry)).get("sha256")
    return digest if isinstance(digest, str) else None


def record_path(entry: Entry) -> Path:
    """Return the path of the record that a pull writes beside the file."""
    return models_folder() / f"{entry.name}.json"


def file_digest(path: Path, *, fresh: bool = False) -> str:
    """Return the file's SHA-256 in hexadecimal; of a split model, that of its parts' digests, one a line.

    A file's is remembered by path, size and modification time, so that half a gigabyte is not read at each start;
    `fresh` reads the file in any case. Raises `ModelError` where a part is missing.
    """
    files = parts(path)
    if len(files) == 1:
        return _digest(path, fresh)
    return hashlib.sha256("".join(f"{_digest(file, fresh)}\n" for file in files).encode()).hexdigest()


def _digest(path: Path, fresh: bool) -> str:
    path = path.resolve()
    status = path.stat()
    match read_json(cache_folder() / "digests.json").get(str(path)):
        case [status.st_size, status.st_mtime_ns, str(known)] if not fresh:
            return known
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    remember_digest(path, digest)
    return digest


def remember_digest(path: Path, digest: str) -> None:
    """Note the digest of a file that was just read; a cache that cannot be written costs time, not the result."""
    cache = cache_folder() / "digests.json"
    status = path.stat()
    known = {key: value for key, value in read_json(cache).items() if Path(key).is_file()}
    known[str(path.resolve())] = [status.st_size, status.st_mtime_ns, digest]
    try:
        write_atomically(cache, json.dumps(known, indent=1))
    except (OSError, UnicodeEncodeError):
        return
