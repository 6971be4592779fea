"""Does it fit into memory? An estimate from the files alone, and what gives way where a limit is set.

    weights    model files, which become resident as they are mapped; matrices repacked for the CPU; adapters
    KV cache   sequences x window x layers x KV heads x head sizes, in float16
    buffers    llama.cpp's compute buffer, the logits, and the states of prompt prefixes that the engine keeps
    process    what this process has taken already, and will: vocabularies, graphs

What is no multiple of a file's sizes was measured, with SmolLM2 and with Qwen2.5-Coder-0.5B:
`python -m benchmarks.memory` compares estimates with peaks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from pathlib import Path

from sgft_edge.errors import InputError, ModelError
from sgft_edge.host import machine
from sgft_edge.solving.adapters import choose_adapters
from sgft_edge.solving.sizes import Sizes
from sgft_edge.store.manifest import Manifest
from sgft_edge.store.places import locate

LEAST_CONTEXT = 512

_MB = 1_000_000
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BATCH = 512  # tokens of one decode call: the largest `batch` that `bench --tune` tries
_PADDING = 256  # llama.cpp rounds the window of a sequence up to a multiple of it
_MASK = 2  # bytes of the attention mask for each token of a batch and each of the window
_LOGIT = 4
_MAPPED = 2**25  # a switch of adapters makes the compute buffer anew; below this glibc's malloc keeps the old one
_PREFIXES = 200  # tokens whose state is kept: the system message under two sets of weights
_TOKEN = 310  # of the vocabulary: text, score, attributes and hash maps
_MODEL, _GRAPH = 4 * _MB, 3 * _MB
_PYTHON = 50 * _MB  # at least, and where the system does not tell
_SEQUENCE = _MB  # samplers, grammars, and llama.cpp's graph for one more stream
_LATER = 5 * _MB  # modules that are imported, and text that is held, while a question is answered


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that is to be opened, and the bytes of each adapter on it."""

    path: Path
    sizes: Sizes
    adapters: tuple[int, ...] = ()

    @classmethod
    def read(cls, path: Path, adapters: Sequence[Path] = ()) -> ModelFile:
        """Raises `ModelError` for a damaged model file."""
        files = {adapter.resolve() for adapter in adapters}
        return cls(path, Sizes.read(path), tuple(file.stat().st_size for file in files))


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of main memory at the peak; `str` is a part of a message, in MB of 10**6 bytes."""

    weights: int = 0
    cache: int = 0
    buffers: int = 0
    process: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.buffers + self.process

    def __add__(self, other: Need) -> Need:
        return Need(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __str__(self) -> str:
        parts = f"weights {_mb(self.weights)}, KV cache {_mb(self.cache)}, buffers {_mb(self.buffers)}"
        return f"{_mb(self.total)} MB ({parts}, process {_mb(self.process)})"


@dataclass(frozen=True, slots=True)
class Fit:
    """What is opened: questions at once, tokens for each, what that needs, and what the user should know."""

    parallel: int
    context: int
    need: Need
    warnings: tuple[str, ...] = ()


def parse_size(text: str) -> int:
    """Bytes from text such as 600M, 1.5G, 800MB or 600000000. Raises `InputError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE | re.ASCII)
    size = int(Decimal(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise InputError(f"max-memory: expected a size such as 600M or 1.5G, or a number of bytes, found {text!r}")
    return size


def estimate(models: Sequence[ModelFile], slots: int, context: int, process: int, on_gpu: bool = False) -> Need:
    """The peak of a process that has `process` bytes now and opens these, with `slots` sequences of `context` tokens.

    On a GPU the KV cache and the buffers lie in its memory and count nothing here; the files are mapped all the same.
    """
    return sum((_of_one(model, slots, context, on_gpu) for model in models), Need(process=process + _LATER))


def _of_one(model: ModelFile, slots: int, context: int, on_gpu: bool) -> Need:
    sizes = model.sizes
    window = min(context, sizes.window or context)
    cells = -(-window // _PADDING) * _PADDING
    batch = min(_BATCH, slots * window)
    logits = slots * sizes.vocabulary * _LOGIT
    compute = max(batch * sizes.row, logits) + batch * cells * _MASK
    if model.adapters and compute < _MAPPED:
        compute *= 2
    return Need(
        weights=sizes.file + (0 if on_gpu else sizes.repacked) + sum(model.adapters),
        cache=0 if on_gpu else slots * cells * sizes.cell,
        buffers=min(_PREFIXES, cells) * sizes.cell + (0 if on_gpu else compute + logits),
        process=_MODEL + _TOKEN * sizes.vocabulary + _GRAPH + _SEQUENCE * slots,
    )


def need_of(
    name: str, path: Path, context: int, known: Manifest, process: int | None = None, on_gpu: bool = False
) -> Need | None:
    """What one question takes with a known model in both roles; None where its file is damaged."""
    try:
        chosen = choose_adapters(name, "auto", name, "auto", known, one_model=True)
        model = ModelFile.read(path, [file.path for file in chosen.by_name.values()])
    except ModelError:
        return None
    if process is None:
        process = max(machine.resident_bytes() or 0, _PYTHON)  # perhaps not all modules are imported yet
    return estimate([model], 1, context, process, on_gpu)


def within(
    files: Mapping[Path, Sequence[Path]],
    parallel: int,
    context: int,
    known: Manifest,
    *,
    sequences: int = 1,
    limit: int | None = None,
    on_gpu: bool = False,
) -> Fit:
    """What to open of model files with their adapters: what fits into `limit` bytes; without one, what was asked for.

    Raises `InputError` where nothing fits. A damaged file has no estimate: whoever opens it tells what is wrong.
    """
    process = machine.resident_bytes() or _PYTHON
    try:
        models = [ModelFile.read(path, adapters) for path, adapters in files.items()]
    except ModelError:
        models = []
    if not models:
        return Fit(parallel, context, Need())
    if limit is not None:
        return fit(models, parallel, context, known, sequences=sequences, limit=limit, process=process, on_gpu=on_gpu)
    need = estimate(models, parallel * sequences, context, process, on_gpu)
    return Fit(parallel, context, need, shortage(need, process))


def fit(
    models: Sequence[ModelFile],
    parallel: int,
    context: int,
    known: Manifest,
    *,
    sequences: int = 1,
    limit: int,
    process: int,
    on_gpu: bool = False,
) -> Fit:
    """Halve `parallel` down to 1, then `context` down to 512 tokens, until the estimate is within `limit` bytes.

    A question takes `sequences` sequences of each engine. Raises `InputError` where even the least does not fit.
    """

    def need(parallel: int, context: int) -> Need:
        return estimate(models, parallel * sequences, context, process, on_gpu)

    asked = fit = Fit(parallel, context, need(parallel, context))
    while fit.need.total > limit:
        if fit.parallel > 1:
            parallel = fit.parallel // 2
        elif fit.context > LEAST_CONTEXT:
            context = max(fit.context // 2, LEAST_CONTEXT)
        else:
            raise InputError(_refusal(models, fit, limit, process, on_gpu, known))
        fit = Fit(parallel, context, need(parallel, context))
    warnings = [
        f"max-memory {_mb(limit)} MB: {name} lowered from {before} to {after}"
        for name, before, after in (
            ("parallel", asked.parallel, fit.parallel),
            ("context", asked.context, fit.context),
        )
        if before != after
    ]
    return replace(fit, warnings=tuple(warnings))


def shortage(need: Need, process: int) -> tuple[str, ...]:
    """A warning where less memory is free than an estimate asks for beyond what the process has already."""
    try:
        free = machine.memory().free
    except (OSError, ValueError, AttributeError):
        return ()
    if need.total - process <= free:
        return ()
    return (
        f"expected {_mb(need.total - process)} MB of free memory, found {_mb(free)}: lower --parallel or --context, "
        f"let --max-memory {_mb(free + process)}M choose, or take a smaller model",
    )


def _refusal(models: Sequence[ModelFile], fit: Fit, limit: int, process: int, on_gpu: bool, known: Manifest) -> str:
    alone = models[0].path if len(models) == 1 else None
    others_here = _installed(limit, process, on_gpu, known)
    fitting = [name for name, path in others_here.items() if alone is None or not path.samefile(alone)]
    others = (
        f"{' or '.join(fitting)} fits" if fitting else "none on this machine fits, `sgft-edge models list` has more"
    )
    return (
        f"max-memory: expected at most {_mb(limit)} MB, found an estimate of {fit.need} for one question of "
        f"{fit.context} tokens: raise the limit, or take a smaller quantization or model; {others}"
    )


def _installed(limit: int, process: int, on_gpu: bool, known: Manifest) -> Mapping[str, Path]:
    """The models on this machine that would fit in both roles, largest first."""
    found: dict[str, tuple[int, Path]] = {}
    for name, entry in known.entries.items():
        path = locate(entry) if entry.role == "model" else None
        if path is None:
            continue
        need = need_of(name, path, LEAST_CONTEXT, known, process, on_gpu)
        if need is not None and need.total <= limit:
            found[name] = need.total, path
    return {name: path for name, (_, path) in sorted(found.items(), key=lambda item: -item[1][0])}


def _mb(size: int) -> int:
    return round(size / _MB)
