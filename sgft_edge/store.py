"""The models that are known by name, and where their files lie on this machine.

The package's `models/manifest.toml` and the user's own `models.toml` name them; the user's entries win. Nothing here
touches the network: `sgft_edge.pull` fetches.

Folders, each moved by an environment variable (`sgft-edge models where` prints them):

    models  SGFT_EDGE_MODELS  downloaded files, and beside each a NAME.json that says where it came from
    config  SGFT_EDGE_CONFIG  models.toml
    cache   SGFT_EDGE_CACHE   digests.json
"""

import dataclasses
import difflib
import hashlib
import json
import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from sgft_edge.errors import ModelError, ModelMissing

__all__ = [
    "Entry",
    "Manifest",
    "add",
    "cache_folder",
    "check_gguf",
    "config_folder",
    "entry_for",
    "file_digest",
    "locate",
    "models_folder",
    "package_models",
    "record_path",
    "remember_digest",
    "remove",
    "resolve",
    "toml_text",
    "trusted_digest",
    "write_atomically",
]

# Names and files become parts of paths on every system: no separators, nothing hidden, nothing relative.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*\.gguf")
_SOURCES = {
    "hf": ("OWNER/REPO/FILE", re.compile(r"[\w.-]+/[\w.-]+/[^/].*")),
    "pypi": ("DIST==VERSION/PATH", re.compile(r"[A-Za-z0-9][\w.-]*==[\w.!+]+/[^/].*")),
    "file": ("ABSOLUTE/PATH", re.compile(r"(~|/|[A-Za-z]:[\\/]|\\\\).+", re.DOTALL)),
}
_USER_HEADER = "# Written by `sgft-edge models add` and `rm`: values may be edited, comments are not kept.\n"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One named model; the fields are explained at the top of `models/manifest.toml`.

    `bytes` and `sha256` are None where nobody has checked the file. `own` is true for the user's entries.
    Raises ModelError where a value cannot be used.
    """

    name: str
    title: str
    role: str
    file: str
    licence: str
    bytes: int | None = None
    sha256: str | None = None
    context: int | None = None
    memory_mb: int | None = None
    sources: tuple[str, ...] = ()
    auto: str | None = None
    description: str = ""
    base: str | None = None
    architecture: str | None = None
    prompts_digest: str | None = None
    own: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.endswith(".gguf"):
            self._reject("name", "lower-case letters, digits, '.', '_', '-', and no .gguf at the end", self.name)
        if not _FILE.fullmatch(self.file):
            self._reject("file", "a file name that ends in .gguf, with no folder", self.file)
        if self.role not in ("model", "adapter"):
            self._reject("role", '"model" or "adapter"', self.role)
        if self.role == "adapter" and not self.base:
            self._reject("base", "the name of the base model that the adapter belongs to", self.base)
        if self.auto not in (None, "exact", "program"):
            self._reject("auto", '"exact" or "program"', self.auto)
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            self._reject("sha256", "64 lower-case hexadecimal digits", self.sha256)
        for field in ("bytes", "context", "memory_mb"):
            value = getattr(self, field)
            if value is not None and value <= 0:
                self._reject(field, "a positive number", value)
        for source in self.sources:
            kind, _, place = source.partition(":")
            if kind not in _SOURCES or not _SOURCES[kind][1].fullmatch(place):
                forms = ", ".join(f"{known}:{form}" for known, (form, _) in _SOURCES.items())
                self._reject("sources", f"one of {forms}", source)

    def _reject(self, field: str, expected: str, found: object) -> None:
        raise ModelError(f"model {self.name!r}: {field} must be {expected}, found {found!r}")

    @classmethod
    def from_table(cls, name: str, table: object, *, own: bool = False) -> "Entry":
        """Build an entry from a parsed TOML table."""
        if not isinstance(table, dict):
            raise ModelError(f"model {name!r}: expected a table, found {table!r}")
        for key, value in table.items():
            if key not in _FIELD_TYPES:
                raise ModelError(f"model {name!r}: unknown key {key!r}{_did_you_mean(key, _FIELD_TYPES)}")
            if type(value) is not _FIELD_TYPES[key]:  # not isinstance: true is no number of bytes
                raise ModelError(f"model {name!r}: {key} must be {_FIELD_TYPES[key].__name__}, found {value!r}")
        if missing := [key for key in ("title", "role", "file", "licence") if key not in table]:
            raise ModelError(f"model {name!r}: missing {', '.join(missing)}")
        sources = table.get("sources", [])
        if not all(isinstance(source, str) for source in sources):
            raise ModelError(f"model {name!r}: sources must be strings, found {sources!r}")
        return cls(name=name, own=own, **{**table, "sources": tuple(sources)})

    def to_table(self) -> dict[str, Any]:
        """Return what `from_table` reads, without the fields that have no value."""
        table = {key: getattr(self, key) for key in _FIELD_TYPES}
        return {key: list(value) if key == "sources" else value for key, value in table.items() if value}


_FIELD_TYPES: dict[str, type] = {
    field.name: int if field.name in ("bytes", "context", "memory_mb") else list if field.name == "sources" else str
    for field in dataclasses.fields(Entry)
    if field.name not in ("name", "own")
}


@dataclass(frozen=True)
class Manifest:
    """Every known model by name."""

    entries: Mapping[str, Entry]

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        for entry in self.entries.values():
            other = names.setdefault(entry.file.casefold(), entry.name)
            if other != entry.name:
                raise ModelError(f"models {other!r} and {entry.name!r} would share the file {entry.file!r}: rename one")

    @classmethod
    def load(cls) -> "Manifest":
        """Read the package's manifest and lay the user's entries over it; ModelError names the file that is wrong."""
        entries = _read(package_models() / "manifest.toml", own=False)
        entries.update(_read(_user_manifest(), own=True))
        return cls(entries)

    def get(self, name: str) -> Entry:
        """Return the entry; ModelError with the nearest names where there is none."""
        try:
            return self.entries[name]
        except KeyError:
            raise ModelError(
                f"unknown model {name!r}{_did_you_mean(name, self.entries)}; `sgft-edge models list` shows all"
            ) from None


def package_models() -> Path:
    """Return the folder of the package's manifest: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "models", package.parent / "models"):
        if (folder / "manifest.toml").is_file():
            return folder
    raise ModelError(f"no models/manifest.toml in {package} or beside it: reinstall sgft-edge")


def models_folder() -> Path:
    """Return the folder of downloaded models; it need not exist."""
    return _folder("SGFT_EDGE_MODELS", platformdirs.user_data_path("sgft-edge", appauthor=False) / "models")


def config_folder() -> Path:
    """Return the folder of the user's models.toml; it need not exist."""
    return _folder("SGFT_EDGE_CONFIG", platformdirs.user_config_path("sgft-edge", appauthor=False))


def cache_folder() -> Path:
    """Return the folder of what can be made again; it need not exist."""
    return _folder("SGFT_EDGE_CACHE", platformdirs.user_cache_path("sgft-edge", appauthor=False))


def locate(entry: Entry) -> Path | None:
    """Return where the entry's file lies: at a `file:` source, in the package, or in the models folder."""
    places = [Path(source.removeprefix("file:")).expanduser() for source in entry.sources if source.startswith("file:")]
    if not entry.own:
        places.append(package_models() / entry.file)
    places.append(models_folder() / entry.file)
    return next((place for place in places if place.is_file()), None)


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a model given by name or by path, without touching the network.

    A path object, and a string that ends in .gguf or has a path separator, is a path; any other string is a name.
    Raises ModelMissing where a known model is not on this machine, ModelError where there is no such name or file.
    """
    if _is_path(name_or_path):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise ModelError(f"no model file at {path}; a model's name has no folder and no .gguf")
        return path
    entry = Manifest.load().get(os.fspath(name_or_path))
    found = locate(entry)
    if found is None:
        raise ModelMissing(f"{entry.name} is not on this machine: run `sgft-edge models pull {entry.name}`")
    size = found.stat().st_size
    if entry.bytes not in (None, size):
        raise ModelError(
            f"{found} has {size} bytes, {entry.name} has {entry.bytes}: run `sgft-edge models pull {entry.name}`"
        )
    return found


def entry_for(name_or_path: str | os.PathLike[str]) -> Entry | None:
    """Return the entry of a name, or of a file: the same file, or one with the same digest."""
    entries = Manifest.load().entries
    if not _is_path(name_or_path):
        return entries.get(os.fspath(name_or_path))
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        return None
    for entry in entries.values():
        place = locate(entry)
        if place is not None and place.samefile(path):
            return entry
    size = path.stat().st_size  # compared first, so that only a likely file is read
    twins = (entry for entry in entries.values() if entry.bytes == size and entry.sha256)
    return next((entry for entry in twins if entry.sha256 == file_digest(path)), None)


def trusted_digest(entry: Entry) -> str | None:
    """Return the SHA-256 that the entry's file must have: the manifest's, else the one that the first pull recorded."""
    if entry.sha256:
        return entry.sha256
    digest = _read_json(record_path(entry)).get("sha256")
    return digest if isinstance(digest, str) else None


def record_path(entry: Entry) -> Path:
    """Return the path of the record that a pull writes beside the file."""
    return models_folder() / f"{entry.name}.json"


def file_digest(path: Path, *, fresh: bool = False) -> str:
    """Return the file's SHA-256 in hexadecimal.

    It is remembered by path, size and modification time, so that half a gigabyte is not read at each start;
    `fresh` reads the file in any case.
    """
    path = path.resolve()
    status = path.stat()
    match _read_json(cache_folder() / "digests.json").get(str(path)):
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
    known = {key: value for key, value in _read_json(cache).items() if Path(key).is_file()}
    known[str(path.resolve())] = [status.st_size, status.st_mtime_ns, digest]
    try:
        write_atomically(cache, json.dumps(known, indent=1))
    except (OSError, UnicodeEncodeError):
        return


def add(
    name: str,
    path: Path,
    *,
    role: str = "model",
    licence: str = "NOASSERTION",
    base: str | None = None,
    force: bool = False,
) -> Entry:
    """Name a file on this machine in the user's models.toml; the file stays where it is.

    `licence` NOASSERTION is SPDX's word for "not stated". Raises ModelError where the file is not GGUF, where the
    base is unknown, and where the name is taken, unless `force`.
    """
    manifest = Manifest.load()
    if name in manifest.entries and not force:
        raise ModelError(f"the model {name!r} exists: choose another name, or replace it with --force")
    if base is not None:
        manifest.get(base)
    path = path.expanduser().resolve()
    check_gguf(path)
    entry = Entry(
        name=name,
        title=path.stem,
        role=role,
        file=f"{name}.gguf",
        licence=licence,
        bytes=path.stat().st_size,
        sha256=file_digest(path, fresh=True),
        sources=(f"file:{path}",),
        base=base,
        own=True,
    )
    own = {known.name: known for known in manifest.entries.values() if known.own} | {name: entry}
    Manifest({**manifest.entries, **own})  # refuses a file name that is taken
    _write_own(own)
    return entry


def remove(name: str) -> None:
    """Take a user's entry out of models.toml; no model file is touched. ModelError where the user has no such entry."""
    own = {entry.name: entry for entry in Manifest.load().entries.values() if entry.own}
    if own.pop(name, None) is None:
        raise ModelError(f"{_user_manifest()} has no model {name!r}{_did_you_mean(name, own)}")
    _write_own(own)


def check_gguf(path: Path) -> None:
    """Raise ModelError unless the file can be read and starts as GGUF files do."""
    try:
        with path.open("rb") as handle:
            magic = handle.read(4)
    except OSError as err:
        raise ModelError(f"cannot read {path}: {err.strerror}") from err
    if magic != b"GGUF":
        raise ModelError(f"{path} is not a GGUF file: it starts with {magic!r}, expected b'GGUF'")


def toml_text(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return `[models.NAME]` tables of strings, whole numbers and lists of strings as TOML (the library only reads).

    TOML's basic strings are JSON's, but for U+007F, which TOML wants escaped (https://toml.io/en/v1.0.0#string).
    """

    def literal(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    return "\n".join(
        f"[models.{literal(name)}]\n" + "".join(f"{key} = {literal(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


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


def _folder(variable: str, default: Path) -> Path:
    return Path(os.environ[variable]).expanduser().absolute() if os.environ.get(variable) else default


def _user_manifest() -> Path:
    return config_folder() / "models.toml"


def _is_path(name_or_path: str | os.PathLike[str]) -> bool:
    if not isinstance(name_or_path, str):
        return True
    return name_or_path.endswith(".gguf") or "/" in name_or_path or os.sep in name_or_path


def _did_you_mean(word: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def _read(path: Path, *, own: bool) -> dict[str, Entry]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as err:
        raise ModelError(f"cannot read {path}: {err.strerror}") from err
    except ValueError as err:  # not UTF-8, or not TOML: that message ends with the line
        raise ModelError(f"{path} is not TOML: {err}") from err
    tables = document.pop("models", {})
    if document or not isinstance(tables, dict):
        raise ModelError(f"{path}: expected only [models.NAME] tables, found {', '.join(document) or 'models = ...'}")
    try:
        return {name: Entry.from_table(name, table, own=own) for name, table in tables.items()}
    except ModelError as err:
        raise ModelError(f"{path}: {err}") from err


def _write_own(entries: Mapping[str, Entry]) -> None:
    text = toml_text({name: entry.to_table() for name, entry in sorted(entries.items())})
    try:
        write_atomically(_user_manifest(), f"{_USER_HEADER}\n{text}")
    except UnicodeEncodeError as err:
        raise ModelError(f"a path that is not valid Unicode cannot be named: {err.object!r}") from err
    except OSError as err:
        raise ModelError(f"cannot write {_user_manifest()}: {err.strerror}") from err


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, empty where it is absent or damaged: it can be made again."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
