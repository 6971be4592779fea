"""What is asked for, and what it is asked of: the options of an export, and its source once it is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from convert import quantize, vocabulary
from convert.adapter import CONFIG, AdapterFolder, read_adapter
from convert.architectures import ARCHITECTURES
from convert.base import Base, find_base
from convert.card import slug
from convert.errors import BaseMismatch, Unsupported
from convert.header import Metadata
from convert.model_gguf import FLOAT_TYPES
from convert.proof import Limits
from sgft_edge.errors import InputError
from sgft_edge.host.files import place

FORMATS = ("merged", "adapter", "both")


@dataclass(frozen=True)
class Options:
    """An export as the command line asks for it.

    `quants` are llama.cpp's file types. `unquantized` is the type of the file that they are made from, by default that
    of the weights. `imatrix` is problems with guidance (.jsonl), any text, or a finished matrix (.gguf), of which
    `imatrix_rows` are read; `overrides` map regular expressions of tensor names to ggml types.
    Raises `InputError` for what cannot go together.
    """

    source: Path
    out: Path
    name: str | None = None
    format: str = "merged"
    quants: tuple[str, ...] = ("Q8_0",)
    base: str | None = None
    dtype: torch.dtype = torch.float32
    unquantized: str | None = None
    adapter_type: str = "F16"
    pre: str | None = None
    imatrix: Path | None = None
    imatrix_rows: int = 128
    overrides: dict[str, int] = field(default_factory=dict)
    allow_requantize: bool = False
    verify: bool = True
    verify_data: Path | None = None
    verify_rows: int = 20
    limits: Limits = field(default_factory=Limits)
    converter: Path | None = None
    force: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"--format: expected one of {', '.join(FORMATS)}, found {self.format!r}")
        if self.verify and self.verify_data is None:
            raise InputError("--verify-data: expected problems with a guidance to verify with; or use --no-verify")
        for name, value in (("--imatrix-rows", self.imatrix_rows), ("--verify-rows", self.verify_rows)):
            if value < 1:
                raise InputError(f"{name}: expected at least 1, found {value}")
        if not self.quants and self.wants_model:
            raise InputError("--quant: expected at least one type, such as Q8_0, found none")
        for quant in self.quants:
            quantize.check_type(quant)
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise InputError(f"--name: expected letters, digits, '.', '_' and '-', found {self.name!r}")
        source, out = self.source.resolve(), place(str(self.out)).resolve()
        if out == source or out in source.parents:
            raise InputError(f"--out {self.out}: expected another folder than that of the source, {self.source}")
        if self.converter is not None and self.collects_imatrix:
            raise InputError("--imatrix: with --converter expected 'none' or a finished matrix (.gguf)")

    @property
    def wants_model(self) -> bool:
        return self.format in ("merged", "both")

    @property
    def wants_adapter(self) -> bool:
        return self.format in ("adapter", "both")

    @property
    def collects_imatrix(self) -> bool:
        """Whether an importance matrix must be computed."""
        return self.imatrix is not None and self.imatrix.suffix != ".gguf" and self.wants_model and self.quantizes

    @property
    def quantizes(self) -> bool:
        """Whether any file is of another kind than floats."""
        return bool(set(self.quants) - {*FLOAT_TYPES} or self.overrides)


@dataclass(frozen=True)
class Source:
    """A base, and an adapter for it or none."""

    options: Options
    base: Base
    adapter: AdapterFolder | None

    @cached_property
    def name(self) -> str:
        return self.options.name or slug(self.options.source.resolve().name.removesuffix(".gguf"))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What is odd and no reason to stop."""
        record = self.adapter.record if self.adapter else None
        if record is None or record.base.digest == self.base.digest():
            return ()
        return (
            f"the base's weights ({self.base.digest()[:12]}) are not those that the adapter was trained on "
            f"({record.base.digest[:12]})",
        )

    def check_tokenizer(self, own: Metadata, config: dict[str, Any]) -> None:
        """Raise `BaseMismatch` for a base whose tokens are not those of the training."""
        if self.adapter is None:
            return
        record, saved = self.adapter.record, self.adapter.path / "tokenizer.json"
        trained = record.base.tokenizer_digest if record else None
        if trained is None and saved.is_file() and not self.base.is_gguf:
            trained = vocabulary.digest(vocabulary.from_folder(self.adapter.path, config, self.options.pre))
        if trained is not None and trained != (found := vocabulary.digest(own)):
            raise BaseMismatch(
                f"{self.adapter.path}: trained with another tokenizer ({trained[:12]}) than that of {self.base.name} "
                f"({found[:12]}): name the base that it was trained on with --base"
            )


def open_source(options: Options) -> Source:
    """Find the base and read the adapter's folder; refuse what cannot be exported as asked before weights are read."""
    adapter = read_adapter(options.source) if (options.source / CONFIG).is_file() else None
    if adapter is None:
        if options.format != "merged":
            raise InputError(
                f"--format {options.format}: expected an adapter's folder, found a model: {options.source}"
            )
        if options.base is not None:
            raise InputError("--base: expected an adapter to go with it, found a model")
        base = find_base(str(options.source))
        _check_unquantized(base, options)
        return Source(options, base, None)
    if options.wants_model:
        adapter.check_mergeable()
    if options.wants_adapter:
        adapter.check_separable()
    name = options.base or adapter.base
    if not name:
        raise InputError(f"{adapter.path}: it does not say what it was trained on: name the base with --base")
    base = find_base(name)
    _check_architecture(base, adapter)
    return Source(options, base, adapter)


def _check_architecture(base: Base, adapter: AdapterFolder) -> None:
    """Refuse a base of another architecture than the one of the training, as far as that is known here."""
    trained = adapter.record.base.architecture if adapter.record else None
    if trained is None and adapter.base and place(adapter.base).exists():
        trained = find_base(adapter.base).architecture
    found = base.architecture
    written_here = {architecture.name for architecture in ARCHITECTURES.values()}
    if trained is not None and _family(found) in written_here - {_family(trained)}:
        raise BaseMismatch(f"{adapter.path}: trained on {trained}, expected the same architecture, found {found}")


def _family(architecture: str) -> str:
    """llama.cpp's name of an architecture that transformers or llama.cpp names."""
    known = ARCHITECTURES.get(architecture)
    return known.name if known else architecture


def _check_unquantized(base: Base, options: Options) -> None:
    if base.is_gguf and not options.allow_requantize:
        types = set(quantize.contents(base.path).types)
        if found := types - {"F32", "F16", "BF16"}:
            raise Unsupported(
                f"{base.path}: it is quantized already ({', '.join(sorted(found))}): start from the original weights, "
                "or take the loss with --allow-requantize"
            )
