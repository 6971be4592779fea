"""States of fixed prompt prefixes on disk: a new process takes them over instead of decoding them again.

A state does not say what computed it, so the name of its file does: a SHA-256 over llama.cpp's build and the
instructions that it uses here, the model, the device, the slots of the context (states of another number of them do
not fit), how it computes (threads and batch move last bits), and every token with the adapter that read it. Whatever
is wrong with a file, the prefix is decoded anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from sgft_edge.host.files import cache_folder
from sgft_edge.llama.library import fingerprint
from sgft_edge.llama.model import Adapter
from sgft_edge.store.digests import file_digest

MOST_BYTES = 256 * 10**6
"""What all states together may take up on disk, unless SGFT_EDGE_PREFIX_MB says otherwise; 0 keeps none."""

_FORMAT = "sgft-edge prefix 2"
_DIGEST_BYTES = hashlib.sha256().digest_size


class PrefixStore:
    """The states of one model under one kind of context; several processes may share the folder."""

    def __init__(self, identity: Sequence[str], folder: Path | None = None, most_bytes: int | None = None) -> None:
        self._identity = [_FORMAT, fingerprint(), *identity]
        self._folder = folder or cache_folder() / "prefixes"
        self._most_bytes = _limit() if most_bytes is None else most_bytes

    def load(self, cells: Sequence[tuple[int, Adapter | None]]) -> bytes | None:
        """The state of these tokens, each with the weights that read it; None where there is no sound one."""
        path = self._path(cells)
        try:
            raw = path.read_bytes()
            os.utime(path)  # what was used last is dropped last
        except OSError:
            return None
        digest, state = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        return state if hashlib.sha256(state).digest() == digest else None

    def save(self, cells: Sequence[tuple[int, Adapter | None]], state: bytes) -> None:
        """Keep a state, and drop the oldest ones beyond the limit.

        What cannot be written costs time, not the result.
        """
        if len(state) + _DIGEST_BYTES > self._most_bytes:
            return
        path = self._path(cells)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("wb") as handle:
                    handle.write(hashlib.sha256(state).digest())
                    handle.write(state)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            self._make_room()
        except OSError:
            return

    def _path(self, cells: Sequence[tuple[int, Adapter | None]]) -> Path:
        digests = {adapter: file_digest(adapter.path) for adapter in {a for _, a in cells} if adapter is not None}
        named = [(token, digests[adapter] if adapter is not None else "") for token, adapter in cells]
        key = hashlib.sha256(json.dumps([self._identity, named]).encode()).hexdigest()
        return self._folder / f"{key}.state"

    def _make_room(self) -> None:
        """Files of writers that were killed count too; another process may take a file away meanwhile."""
        files = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._most_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def _limit() -> int:
    megabytes = os.environ.get("SGFT_EDGE_PREFIX_MB", "")
    return int(megabytes) * 10**6 if megabytes.isdecimal() else MOST_BYTES
