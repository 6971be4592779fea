"""Where the files of known models lie on this machine, and whether they are what they should be.

Nothing here touches the network: `sgft_edge.store.pull` fetches.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sgft_edge.errors import ModelError, ModelMissing
from sgft_edge.host.files import models_folder
from sgft_edge.store.digests import file_digest, trusted_digest
from sgft_edge.store.header import check_gguf
from sgft_edge.store.manifest import Entry, Manifest, package_models, put, read_entries
from sgft_edge.store.splits import parts, settled, size_of

Accept = Callable[[Entry, Path], None]
"""Called with an entry and its file before the entry is written; what it raises keeps it from that."""


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """A known model as it is on this machine.

    `bytes` is the size found there, else the manifest's. `verified` is "yes", "NO", "as first seen" (the digest is
    that of the first pull), "no digest", "unreadable", or "-" where there is no file.
    """

    name: str
    title: str
    role: str
    bytes: int | None
    licence: str
    path: str | None
    verified: str
    description: str


def locate(entry: Entry) -> Path | None:
    """Return where the entry's file lies: at a `file:` source, in the package, or in the models folder."""
    places = [Path(source.removeprefix("file:")).expanduser() for source in entry.sources if source.startswith("file:")]
    if not entry.own:
        places.append(package_models() / entry.file)
    places.append(models_folder() / entry.file)
    return next((place for place in places if place.is_file()), None)


def resolve(name_or_path: str | os.PathLike[str], known: Manifest | None = None) -> Path:
    """Return the file of a model given by name or by path, without touching the network.

    `known` is the manifest, read anew where it is not given.
    A path object, and a string that ends in .gguf or has a path separator, is a path; any other string is a name.
    Raises ModelMissing where a known model is not on this machine, ModelError where there is no such name or file.
    """
    if is_path(name_or_path):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise ModelError(f"no model file at {path}; a model's name has no folder and no .gguf")
        return path
    entry = (known or Manifest.load()).get(os.fspath(name_or_path))
    found = locate(entry)
    if found is None:
        raise missing(entry)
    size = size_of(found)
    if entry.bytes not in (None, size):
        raise ModelError(
            f"{found} has {size} bytes, {entry.name} has {entry.bytes}: run `sgft-edge models pull {entry.name}`"
        )
    return found


def missing(entry: Entry) -> ModelMissing:
    """Return what to say of a known model whose file is not on this machine."""
    if entry.sources and all(source.startswith("file:") for source in entry.sources):
        mend = (
            f"{entry.sources[0].removeprefix('file:')} is gone: put it back, "
            f"or name another file with `sgft-edge models add {entry.name} FILE --force`"
        )
    else:
        mend = f"run `sgft-edge models pull {entry.name}`"
    return ModelMissing(f"{entry.name} is not on this machine: {mend}")


def entry_for(name_or_path: str | os.PathLike[str], known: Manifest | None = None) -> Entry | None:
    """Return the entry of a name, or of a file: the same file, or one with the same digest.

    `known` is the manifest, read anew where it is not given.
    """
    entries = (known or Manifest.load()).entries
    if not is_path(name_or_path):
        return entries.get(os.fspath(name_or_path))
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        return None
    for entry in entries.values():
        place = locate(entry)
        if place is not None and place.samefile(path):
            return entry
    size = size_of(path)  # compared first, so that only a likely file is read
    twins = (entry for entry in entries.values() if entry.bytes == size and entry.sha256)
    return next((entry for entry in twins if entry.sha256 == file_digest(path)), None)


def state(entry: Entry) -> ModelState:
    """Say whether the entry's file is on this machine, and whether its digest is the expected one."""
    path = locate(entry)
    size = entry.bytes
    if path is not None:
        with suppress(ModelError, OSError):
            size = size_of(path)
    return ModelState(
        name=entry.name,
        title=entry.title,
        role=entry.role,
        bytes=size,
        licence=entry.licence,
        path=str(path) if path else None,
        verified=_verified(entry, path) if path else "-",
        description=entry.description,
    )


def _verified(entry: Entry, path: Path) -> str:
    expected = trusted_digest(entry)
    if expected is None:
        return "no digest"
    try:
        if file_digest(path) != expected:
            return "NO"
    except (OSError, ModelError):
        return "unreadable"
    return "yes" if entry.sha256 else "as first seen"


def add(
    name: str,
    path: Path,
    *,
    role: str = "model",
    licence: str = "NOASSERTION",
    base: str | None = None,
    force: bool = False,
    accept: Accept = lambda entry, file: None,
) -> Entry:
    """Name a file on this machine in the user's models.toml; the file stays where it is.

    `licence` NOASSERTION is SPDX's word for "not stated". What takes a known model's name, or is its file, has that
    one's rank. Raises ModelError where the file is not GGUF or a part of it is missing, where the base is unknown, and
    where the name is taken, unless `force`.
    """
    manifest = Manifest.load()
    if name in manifest.entries and not force:
        raise ModelError(f"the model {name!r} exists: choose another name, or replace it with --force")
    if base is not None:
        manifest.get(base)
    path = settled(path)
    for part in parts(path):
        check_gguf(part)
    digest = file_digest(path, fresh=True)
    twins = (entry for entry in manifest.entries.values() if entry.sha256 == digest)
    known = manifest.entries.get(name) or next(twins, None)
    entry = Entry(
        name=name,
        title=path.stem,
        role=role,
        file=f"{name}.gguf",
        licence=licence,
        bytes=size_of(path),
        sha256=digest,
        sources=(f"file:{path}",),
        rank=known.rank if known else None,
        base=base,
        own=True,
    )
    accept(entry, path)
    put(entry)
    return entry


def add_export(folder: Path, *, force: bool = False, accept: Accept = lambda entry, file: None) -> list[Entry]:
    """Name all files of an export folder by the entries in its models.toml; the files stay where they are.

    Raises ModelError where the folder has no entries, a file is not as its entry says, a base is unknown, or a name
    is taken, unless `force`; then no entry is added.
    """
    found = read_entries(folder / "models.toml", own=True)
    if not found:
        raise ModelError(
            f"{folder}: expected an export folder with a models.toml, found none; a single file needs a name"
        )
    manifest = Manifest.load()
    entries = []
    for entry in found.values():
        if entry.name in manifest.entries and not force:
            raise ModelError(f"the model {entry.name!r} exists: replace it with --force")
        if entry.base is not None and entry.base not in manifest.entries:
            raise ModelError(
                f"{entry.name}: its base {entry.base!r} is not known here: name it first with "
                f"`sgft-edge models add {entry.base} FILE`"
            )
        path = settled(folder / entry.file)
        check_gguf(path)
        digest = file_digest(path, fresh=True)
        if entry.sha256 not in (None, digest):
            raise ModelError(f"{path}: expected sha256 {entry.sha256}, found {digest}: export it again")
        file = f"{entry.name}.gguf"  # two exports may have files of one name
        accept(entry, path)
        entries.append(replace(entry, file=file, sha256=digest, bytes=size_of(path), sources=(f"file:{path}",)))
    for entry in entries:
        put(entry)
    return entries


def is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """Say whether `resolve` takes this for a path rather than a name."""
    if not isinstance(name_or_path, str):
        return True
    return name_or_path.endswith(".gguf") or "/" in name_or_path or os.sep in name_or_path
