"""The folders that hold the user's files, and how a file is written to them.

Each folder is moved by an environment variable (`sgft-edge models where` prints them):

    models  SGFT_EDGE_MODELS  downloaded files, and beside each a NAME.json that says where it came from
    config  SGFT_EDGE_CONFIG  models.toml, defaults.toml (see default.py), machine.toml (see tuning.py)
    cache   SGFT_EDGE_CACHE   digests.json, trials/ (see strangers.py), chat_history, and prefixes/ (see prefixes.py)
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import platformdirs

from sgft_edge.errors import InputError, SgftError
from sgft_edge.host.locks import alone

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a disk is full, or the user's share of it, or a file as large as it may be."""

_BROKEN = (*FULL, errno.EROFS, errno.EIO, errno.ESTALE)
_ABANDONED_SECONDS = 3600.0
_MOST = 64 * 2**20  # bytes of a question or a conversation; a device may never end


def models_folder() -> Path:
    """The folder of downloaded models; it need not exist."""
    return _folder("SGFT_EDGE_MODELS", platformdirs.user_data_path("sgft-edge", appauthor=False) / "models")


def config_folder() -> Path:
    """The folder of the user's models.toml; it need not exist."""
    return _folder("SGFT_EDGE_CONFIG", platformdirs.user_config_path("sgft-edge", appauthor=False))


def cache_folder() -> Path:
    """The folder of what can be made again; it need not exist."""
    return _folder("SGFT_EDGE_CACHE", platformdirs.user_cache_path("sgft-edge", appauthor=False))


def place(name: str) -> Path:
    """The path that a user names, `~` and `~user` replaced by their folders. Raises `InputError`."""
    if not name.strip():
        raise InputError("expected a file's name, found nothing")
    if "\0" in name:
        raise InputError(f"expected a file's name, found {name!r}, which has a null character")
    try:
        return Path(name).expanduser()
    except RuntimeError as e:
        user = Path(name).parts[0]
        raise InputError(f"expected a file's name, found {name!r}, and no home folder for {user!r}") from e


def write_atomically(path: Path, text: str, errors: str = "strict") -> None:
    """Write a file as UTF-8 so that a reader, or a power cut, sees the old text or the new one. Raises `OSError`.

    `errors` says what becomes of a lone surrogate, as `str.encode` has it. A link stays one, to what is written; a
    device or a pipe stays what it is.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", errors=errors, newline="\n") as handle:
            handle.write(text)
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("w", encoding="utf-8", errors=errors, newline="\n") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def changing(path: Path) -> Iterator[None]:
    """Hold a file that is read, changed and written anew, so that of two processes none undoes what the other did.

    Raises `OSError` where its folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.with_name(f".{path.name}.lock"), wait=True):
        yield


def _sweep(path: Path) -> None:
    """Delete what writers of a file left that were killed: what has not been touched for long."""
    old = time.time() - _ABANDONED_SECONDS
    with contextlib.suppress(OSError), os.scandir(path.parent) as found:
        for entry in found:
            if re.fullmatch(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}", entry.name) and entry.stat().st_mtime < old:
                os.unlink(entry.path)


def refusal(message: str, error: OSError) -> SgftError:
    """What to raise where a file cannot be written: `InputError` where another name would do, else `SgftError`."""
    hint = ": make room, then run it again" if error.errno in FULL else ""
    said = f"{message}: {error.strerror or error}{hint}"
    return SgftError(said) if error.errno in _BROKEN else InputError(said)


def read_bounded(path: Path) -> bytes:
    """A file's bytes. Raises `OSError`, and `InputError` for more than what is typed or saved ever comes to."""
    with path.open("rb") as handle:
        content = handle.read(_MOST + 1)
    if len(content) > _MOST:
        raise InputError(f"{path}: expected at most {_MOST // 2**20} MiB, found more: name another file")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty where it is absent or damaged: for what can be made again."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def toml_tables(kind: str, tables: Mapping[str, Mapping[str, Any]]) -> str:
    """`[KIND.NAME]` tables of strings, numbers and lists of strings as TOML, which Python's library only reads.

    TOML's basic strings are JSON's, but for U+007F, which TOML wants escaped (https://toml.io/en/v1.0.0#string).
    """

    def literal(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    return "\n".join(
        f"[{kind}.{literal(name)}]\n" + "".join(f"{key} = {literal(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def _folder(variable: str, default: Path) -> Path:
    return place(os.environ[variable]).absolute() if os.environ.get(variable) else default
