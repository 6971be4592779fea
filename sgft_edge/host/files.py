"""The folders that hold the user's files, and how a file is written to them.

Each folder is moved by an environment variable (`sgft-edge models where` prints them):

    models  SGFT_EDGE_MODELS  downloaded files, and beside each a NAME.json that says where it came from
    config  SGFT_EDGE_CONFIG  models.toml, defaults.toml (see default.py), machine.toml (see tuning.py)
    cache   SGFT_EDGE_CACHE   digests.json, trials/ (see strangers.py), chat_history, and prefixes/ (see prefixes.py)
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs


def models_folder() -> Path:
    """The folder of downloaded models; it need not exist."""
    return _folder("SGFT_EDGE_MODELS", platformdirs.user_data_path("sgft-edge", appauthor=False) / "models")


def config_folder() -> Path:
    """The folder of the user's models.toml; it need not exist."""
    return _folder("SGFT_EDGE_CONFIG", platformdirs.user_config_path("sgft-edge", appauthor=False))


def cache_folder() -> Path:
    """The folder of what can be made again; it need not exist."""
    return _folder("SGFT_EDGE_CACHE", platformdirs.user_cache_path("sgft-edge", appauthor=False))


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a power cut, sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    return Path(os.environ[variable]).expanduser().absolute() if os.environ.get(variable) else default
