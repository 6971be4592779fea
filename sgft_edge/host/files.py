"""The folders that hold the user's files, and how a file is written to them.

Each folder is moved by an environment variable (`sgft-edge models where` prints them):

    models  SGFT_EDGE_MODELS  downloaded files, and beside each a NAME.json that says where it came from
    config  SGFT_EDGE_CONFIG  models.toml, defaults.toml (see default.py), machine.toml (see tuning.py)
    cache   SGFT_EDGE_CACHE   digests.json, chat_history, and prefixes/ (see prefixes.py)
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from sgft_edge.errors import InputError

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


def write_atomically(path: Path, text: str) -> None:
    """Write a file as UTF-8 so that a reader, or a power cut, sees the old text or the new one. Raises `OSError`.

    A link stays one, to what is written; a device or a pipe stays what it is.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8", errors="replace", newline="\n") as handle:
            handle.write(text)
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    except (OSError, ValueError):
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
