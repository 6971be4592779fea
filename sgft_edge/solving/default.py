"""Which model answers where none is named.

The user's own default, which `sgft-edge models use NAME` keeps in defaults.toml. Without one, the best of the models on
this machine that fit into memory: that with the lowest `rank` in the manifest, after all ranked ones those without, in
the manifest's order.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sgft_edge.errors import InputError, ModelError, ModelMissing
from sgft_edge.host import machine
from sgft_edge.host.files import config_folder, write_atomically
from sgft_edge.host.machine import MB
from sgft_edge.reasoning.settings import DEFAULT_CONTEXT, DEFAULT_MODEL
from sgft_edge.store.manifest import Entry, Manifest
from sgft_edge.store.places import is_path, locate, resolve

_HEADER = "# Written by `sgft-edge models use`; it may be deleted.\n"
_OWN = "it is your default"
_TAKE_BACK = "`sgft-edge models use --auto` takes the choice back"


@dataclass(frozen=True, slots=True)
class Default:
    """A model's name, and the reason for it where it is not the plain default; `str` is a line for the user."""

    name: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} answers where no model is named" + (f": {self.why}" if self.why else "")


def choose_default(
    max_memory: int | None = None, context: int = DEFAULT_CONTEXT, known: Manifest | None = None
) -> Default:
    """The model that answers where none is named. Where none fits into memory it is the smallest: a tight one may do.

    A model fits whose `memory_mb` is free. Under a limit of `max_memory` bytes it is one whose estimate for a question
    of `context` tokens is within it, or if there is none, for one of less; the user's own default goes first then.
    Nothing of a model's file is read but, under a limit, its header. `known` is the manifest, read anew where it is not
    given. Raises ModelMissing where no model is on this
    machine, or the user's own default is not.
    """
    known = known or Manifest.load()
    own = own_default()
    if own is not None:
        _check_own(own, known)
        if max_memory is None:
            return Default(own, _OWN)
    ranked = _by_rank(own, known)
    here = {entry.name: (entry, path) for entry in ranked if (path := locate(entry)) is not None}
    if not here:
        raise ModelMissing(f"no model is on this machine: run `sgft-edge models pull`, which fetches {DEFAULT_MODEL}")
    fitting = _within_free_memory(here) if max_memory is None else _within(max_memory, context, here, known)
    name = fitting or min(here, key=lambda name: _memory_of(*here[name]))
    expected = own or DEFAULT_MODEL
    if name == expected:
        return Default(name, _OWN if own else "")
    if next(entry.name for entry in ranked if entry.name in (name, expected)) == name:
        return Default(name, "it is the best on this machine that fits into memory")
    if expected not in here:
        return Default(name, f"{expected} is not on this machine, `sgft-edge models pull` fetches it")
    if max_memory is not None:
        return Default(name, f"{expected} does not fit into {max_memory // MB} MB")
    return Default(name, f"{expected} needs about {_memory_of(*here[expected]) // MB} MB of memory, less is free")


def own_default() -> str | None:
    """The name that the user chose. Raises ModelError where the file with it cannot be read."""
    path = _file()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as e:
        raise ModelError(f"cannot read {path}: {e.strerror}") from e
    except (ValueError, RecursionError):
        table = {}
    match table:
        case {"model": str(name)}:
            return name
    raise ModelError(f'{path}: expected model = "NAME", found otherwise: {_TAKE_BACK}')


def use(name: str) -> None:
    """Make a model the user's own default.

    Raises InputError for a file and for an adapter, ModelError for a name that is unknown or not on this machine.
    """
    if is_path(name):
        raise InputError(
            f"expected a model's name, found {name}: give the file a name with `sgft-edge models add NAME {name}`"
        )
    known = Manifest.load()
    entry = known.get(name)
    if entry.role != "model":
        raise InputError(f"expected a model, found {name}, which is an adapter of {entry.base}: use {entry.base}")
    resolve(name, known)
    try:
        write_atomically(_file(), f"{_HEADER}\nmodel = {json.dumps(name)}\n")
    except OSError as e:
        raise ModelError(f"cannot write {_file()}: {e.strerror or e}") from e


def use_none() -> None:
    """Forget the user's own default. Raises ModelError where its file cannot be deleted."""
    try:
        _file().unlink(missing_ok=True)
    except OSError as e:
        raise ModelError(f"cannot delete {_file()}: {e.strerror or e}") from e


def require_memory(entry: Entry) -> None:
    """Raise ModelError where the manifest says that a model needs more memory than this process could ever have."""
    try:
        most = machine.memory().most // MB
    except (OSError, ValueError, AttributeError):  # the system does not tell
        return
    if entry.memory_mb is not None and entry.memory_mb > most:
        raise ModelError(f"{entry.name} needs about {entry.memory_mb} MB of memory, this machine grants {most} MB")


def _file() -> Path:
    return config_folder() / "defaults.toml"


def _check_own(name: str, known: Manifest) -> None:
    try:
        resolve(name, known)
    except ModelError as e:
        raise ModelMissing(f"your default model {name} cannot be had: {e}; {_TAKE_BACK}") from e


def _by_rank(first: str | None, known: Manifest) -> list[Entry]:
    """All models, the best first; before them, the user's own default."""
    models = (entry for entry in known.entries.values() if entry.role == "model")
    return sorted(models, key=lambda entry: (entry.name != first, entry.rank is None, entry.rank or 0))


def _memory_of(entry: Entry, path: Path) -> int:
    """Bytes that a model takes by the manifest, at least its file's size where that does not tell."""
    return entry.memory_mb * MB if entry.memory_mb else entry.bytes or path.stat().st_size


def _within_free_memory(here: Mapping[str, tuple[Entry, Path]]) -> str | None:
    try:
        free = machine.memory().free
    except (OSError, ValueError, AttributeError):  # the system does not tell: nothing speaks against the best
        return next(iter(here))
    return next((name for name, found in here.items() if _memory_of(*found) <= free), None)


def _within(limit: int, context: int, here: Mapping[str, tuple[Entry, Path]], known: Manifest) -> str | None:
    from sgft_edge.solving.budget import LEAST_CONTEXT, need_of

    for tokens in (context, min(context, LEAST_CONTEXT)):
        for name, (_, path) in here.items():
            need = need_of(name, path, tokens, known)
            if need is not None and need.total <= limit:
                return name
    return None
