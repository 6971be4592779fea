"""Model files that were never opened on this machine: each is opened in a process of its own first, once.

What came of it is kept in the cache folder's `trials/`, by the SHA-256 of the file, an adapter's with its base's, for
the llama.cpp that tried it. Files whose digest the package's manifest has need no trial. `SGFT_EDGE_TRIAL=off` opens
all files without one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sgft_edge.errors import AdapterMismatch, ModelError
from sgft_edge.host.files import cache_folder, read_json, write_atomically
from sgft_edge.llama.model_trial import Fault, Step, outcomes
from sgft_edge.solving.budget import ModelFile, estimate
from sgft_edge.store.digests import file_digest
from sgft_edge.store.header import check_gguf
from sgft_edge.store.manifest import Entry, Manifest
from sgft_edge.store.places import locate
from sgft_edge.store.splits import size_of

_ROOM = 1 << 30  # bytes, for libraries, threads and a small model's buffers
_WINDOW = 512  # tokens; twice the trial's
_SECONDS = 20
_PACE = 20_000_000  # bytes of a file that a slow processor takes up in a second


@dataclass(frozen=True, slots=True)
class _Pair:
    """A model's file, or an adapter's with the model that it is opened on."""

    model: Path
    adapter: Path | None = None

    @property
    def file(self) -> Path:
        return self.adapter or self.model

    @property
    def digests(self) -> tuple[str, ...]:
        """Raises `ModelError` for a file that cannot be read."""
        files = (self.model,) if self.adapter is None else (self.model, self.adapter)
        for file in files:
            check_gguf(file)
        return tuple(map(file_digest, files))

    def step(self) -> Step:
        """The trial of it, with bounds from what the files say and, since they may lie, from their sizes."""
        size = size_of(self.model) + (size_of(self.adapter) if self.adapter else 0)
        most = 16 * size
        with suppress(ModelError):
            need = estimate([ModelFile.read(self.model, [self.adapter] if self.adapter else [])], 1, _WINDOW, 0)
            most = min(2 * need.total, most)
        adapter = None if self.adapter is None else str(self.adapter)
        return Step(str(self.model), adapter, _ROOM + most, _SECONDS + size // _PACE)


def try_out(loaded: Mapping[Path, Sequence[Path]], known: Manifest | None = None, *, fresh: bool = False) -> None:
    """Try models, each with the adapters that are loaded onto it, those apart that are known to open.

    Raises `ModelError` for the first that does not open, and `EngineError` where llama.cpp does not load. `fresh`
    tries what was tried before too.
    """
    if _switched_off():
        return
    untried = []
    for pair, digests in _strangers(loaded, known):
        verdict = None if fresh else _remembered(digests)
        if verdict is None:
            untried.append((pair, digests))
        elif verdict.fault is not None:
            raise _error(pair, verdict.fault)
    for pair, fault in _tried(untried):
        if fault is not None:
            raise _error(pair, fault)


def try_ahead(several: Sequence[Mapping[Path, Sequence[Path]]]) -> None:
    """Try the files of several openings in one process, as long as it lives; each then costs its opening no time.

    Raises `EngineError` where llama.cpp does not load; what does not open is told by `try_out`.
    """
    if _switched_off():
        return
    untried: dict[tuple[str, ...], _Pair] = {}
    for loaded in several:
        with suppress(ModelError):
            untried |= {digests: pair for pair, digests in _strangers(loaded, None) if _remembered(digests) is None}
    for _ in _tried([(pair, digests) for digests, pair in untried.items()]):
        pass


def _switched_off() -> bool:
    frozen = getattr(sys, "frozen", False) or not sys.executable  # inside another program there is no Python to start
    return bool(frozen) or os.environ.get("SGFT_EDGE_TRIAL", "").lower() == "off"


def _strangers(
    loaded: Mapping[Path, Sequence[Path]], known: Manifest | None
) -> Iterator[tuple[_Pair, tuple[str, ...]]]:
    """Models, and adapters on them, that the package's manifest does not have, with their digests."""
    trusted = {entry.sha256 for entry in (known or Manifest.load()).entries.values() if not entry.own}
    for pair in dict.fromkeys(_pairs(loaded)):
        if not trusted.issuperset(digests := pair.digests):
            yield pair, digests


def _tried(untried: Sequence[tuple[_Pair, tuple[str, ...]]]) -> Iterator[tuple[_Pair, Fault | None]]:
    found = outcomes([pair.step() for pair, _ in untried])
    for (pair, digests), (library, fault) in zip(untried, found, strict=True):
        if fault is None or fault.lasting:
            _remember(digests, library, fault)
        yield pair, fault


def try_entry(entry: Entry, file: Path, known: Manifest) -> None:
    """Try a file that is to have a known name, anew. An adapter whose base is not on this machine has no trial yet.

    Raises as `try_out`.
    """
    if entry.role == "model":
        try_out({file: ()}, known, fresh=True)
    elif (base := known.entries.get(entry.base or "")) and (model := locate(base)):
        try_out({model: ()}, known)
        try_out({model: (file,)}, known, fresh=True)


def _pairs(loaded: Mapping[Path, Sequence[Path]]) -> Iterator[_Pair]:
    for model, adapters in loaded.items():
        yield _Pair(model)
        for adapter in adapters:
            yield _Pair(model, adapter)


@dataclass(frozen=True, slots=True)
class _Verdict:
    fault: Fault | None


def _record(digests: Sequence[str]) -> Path:
    return cache_folder() / "trials" / f"{'-'.join(digests)}.json"


def _remembered(digests: Sequence[str]) -> _Verdict | None:
    """What an earlier trial by this llama.cpp came to; a damaged record is as none."""
    from sgft_edge.llama.library import fingerprint

    match read_json(_record(digests)):
        case {"library": library, "fault": None} if library == fingerprint():
            return _Verdict(None)
        case {"library": library, "fault": {"kind": str(kind), "reason": str(reason)}} if library == fingerprint():
            return _Verdict(Fault(kind, reason))
    return None


def _remember(digests: Sequence[str], library: str, fault: Fault | None) -> None:
    record = {"library": library, "fault": None if fault is None else asdict(fault)}
    with suppress(OSError):  # a cache that cannot be written costs time, not the result
        write_atomically(_record(digests), json.dumps(record) + "\n")


def _error(pair: _Pair, fault: Fault) -> ModelError:
    kind = AdapterMismatch if fault.kind == "AdapterMismatch" else ModelError
    if fault.kind not in ("", "EngineError"):
        return kind(f"{pair.file}: {fault.reason}")
    what = "an adapter" if pair.adapter else "a model"
    mend = "fetch or convert the file anew" if fault.lasting else "free some memory and try again, or take another file"
    return kind(f"{pair.file}: expected {what} that opens, found one that does not: {fault.reason}: {mend}")
