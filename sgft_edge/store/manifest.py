"""The models that are known by name.

The package's `models/manifest.toml` and the user's own `models.toml` name them; the user's entries win.
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sgft_edge.errors import ModelError
from sgft_edge.host.files import changing, config_folder, toml_tables, write_atomically
from sgft_edge.reasoning.settings import ANSWERING

__all__ = ["Entry", "Manifest", "package_models", "put", "read_entries", "remove", "requirements"]


# Names and files become parts of paths on every system: no separators, nothing hidden, nothing relative.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*\.gguf")
_SOURCES = {
    "hf": ("OWNER/REPO/FILE", re.compile(r"[\w.-]+/[\w.-]+/[^/].*")),
    "pypi": (
        "DIST==VERSION/PATH or DIST{FIRST..LAST}==VERSION/PATH",
        re.compile(r"[A-Za-z0-9][\w.-]*(\{\d{1,4}\.\.\d{1,4}\})?[\w.-]*==[\w.!+]+/[^/].*"),
    ),
    "file": ("ABSOLUTE/PATH", re.compile(r"(~|/|[A-Za-z]:[\\/]|\\\\).+", re.DOTALL)),
}
_NUMBERS = ("bytes", "context", "memory_mb", "rank")
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
    rank: int | None = None
    sources: tuple[str, ...] = ()
    auto: str | None = None
    auto_choices: str | None = None
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
        for field in ("auto", "auto_choices"):
            if getattr(self, field) not in (None, *ANSWERING):
                self._reject(field, f"one of {', '.join(ANSWERING)}", getattr(self, field))
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            self._reject("sha256", "64 lower-case hexadecimal digits", self.sha256)
        for field in _NUMBERS:
            value = getattr(self, field)
            if value is not None and value <= 0:
                self._reject(field, "a positive number", value)
        for source in self.sources:
            kind, _, place = source.partition(":")
            known = kind in _SOURCES and _SOURCES[kind][1].fullmatch(place)
            if not known or (kind == "pypi" and not requirements(place)):
                forms = ", ".join(f"{prefix}:{form}" for prefix, (form, _) in _SOURCES.items())
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
        if missing := [key for key in _REQUIRED if key not in table]:
            raise ModelError(f"model {name!r}: missing {', '.join(missing)}")
        sources = table.get("sources", [])
        if not all(isinstance(source, str) for source in sources):
            raise ModelError(f"model {name!r}: sources must be strings, found {sources!r}")
        return cls(name=name, own=own, **{**table, "sources": tuple(sources)})

    def to_table(self) -> dict[str, Any]:
        """Return what `from_table` reads, without the fields that have no value."""
        table = {key: getattr(self, key) for key in _FIELD_TYPES}
        kept = {key: value for key, value in table.items() if value or key in _REQUIRED}
        return kept | ({"sources": list(self.sources)} if self.sources else {})


_REQUIRED = ("title", "role", "file", "licence")
_FIELD_TYPES: dict[str, type] = {
    field.name: int if field.name in _NUMBERS else list if field.name == "sources" else str
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

    @staticmethod
    def load() -> "Manifest":
        """Read the package's manifest and lay the user's entries over it; ModelError names the file that is wrong.

        What was read is kept until one of the files changes.
        """
        paths = package_models() / "manifest.toml", _user_manifest()
        return _read_manifest(*paths, *map(_stamp, paths))

    def get(self, name: str) -> Entry:
        """Return the entry; ModelError with the nearest names where there is none."""
        try:
            return self.entries[name]
        except KeyError:
            raise ModelError(
                f"unknown model {name!r}{_did_you_mean(name, self.entries)}; `sgft-edge models list` shows all"
            ) from None


@lru_cache(maxsize=1)
def _read_manifest(packaged: Path, own: Path, *_: object) -> Manifest:
    return Manifest({**read_entries(packaged, own=False), **read_entries(own, own=True)})


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written anew."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def package_models() -> Path:
    """Return the folder of the package's manifest: `shipped` inside the package in a wheel, `models` in a checkout."""
    package = Path(__file__).resolve().parent.parent
    folders = (package / "shipped", package.parent / "models")
    for folder in folders:
        if (folder / "manifest.toml").is_file():
            return folder
    raise ModelError(f"no manifest.toml in {' or '.join(map(str, folders))}: reinstall sgft-edge")


def requirements(place: str) -> list[str]:
    """Return the requirements of a `pypi:` source in order: one, or one for each number of {FIRST..LAST}."""
    requirement = place.partition("/")[0]
    numbers = re.search(r"\{(\d+)\.\.(\d+)\}", requirement)
    if numbers is None:
        return [requirement]
    return [requirement.replace(numbers[0], str(n)) for n in range(int(numbers[1]), int(numbers[2]) + 1)]


def put(entry: Entry) -> None:
    """Write an entry into the user's models.toml, over one of that name.

    Raises ModelError where another model has its file name.
    """
    with _changing_own():
        entries = Manifest.load().entries
        own = {known.name: known for known in entries.values() if known.own} | {entry.name: entry}
        Manifest({**entries, **own})  # refuses a file name that is taken
        _write_own(own)


def remove(name: str) -> None:
    """Take a user's entry out of models.toml; no model file is touched. ModelError where the user has no such entry."""
    with _changing_own():
        own = {entry.name: entry for entry in Manifest.load().entries.values() if entry.own}
        if own.pop(name, None) is None:
            raise ModelError(f"{_user_manifest()} has no model {name!r}{_did_you_mean(name, own)}")
        _write_own(own)


def _user_manifest() -> Path:
    return config_folder() / "models.toml"


def _did_you_mean(word: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def read_entries(path: Path, *, own: bool) -> dict[str, Entry]:
    """Return the entries of a TOML file by name, none where there is no file; ModelError says what is wrong with it."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as err:
        raise ModelError(f"cannot read {path}: {err.strerror}") from err
    except (ValueError, RecursionError) as err:  # not UTF-8, or not TOML: that message ends with the line
        raise ModelError(f"{path} is not TOML: {err}") from err
    tables = document.pop("models", {})
    if document or not isinstance(tables, dict):
        raise ModelError(f"{path}: expected only [models.NAME] tables, found {', '.join(document) or 'models = ...'}")
    try:
        return {name: Entry.from_table(name, table, own=own) for name, table in tables.items()}
    except ModelError as err:
        raise ModelError(f"{path}: {err}") from err


@contextmanager
def _changing_own() -> Iterator[None]:
    """Hold the user's models.toml. Raises ModelError where it cannot be written."""
    try:
        with changing(_user_manifest()):
            yield
    except OSError as err:
        raise ModelError(f"cannot write {_user_manifest()}: {err.strerror or err}") from err


def _write_own(entries: Mapping[str, Entry]) -> None:
    text = toml_tables("models", {name: entry.to_table() for name, entry in sorted(entries.items())})
    try:
        write_atomically(_user_manifest(), f"{_USER_HEADER}\n{text}")
    except UnicodeEncodeError as err:
        raise ModelError(f"a path that is not valid Unicode cannot be named: {err.object!r}") from err
