"""Quantization through llama.cpp itself, and what came out of it."""

from __future__ import annotations

import ctypes
import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import llama_cpp.llama_cpp as c
import numpy as np

from convert.errors import ConversionError
from convert.header import read_header
from convert.imatrix import ImportanceMatrix
from sgft_edge.errors import InputError
from sgft_edge.host.machine import physical_cores
from sgft_edge.llama.library import log_lines

FILE_TYPES: dict[str, int] = {
    name.removeprefix("LLAMA_FTYPE_").removeprefix("MOSTLY_").removeprefix("ALL_"): value
    for name, value in vars(c).items()
    if name.startswith(("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_"))
}
"""llama.cpp's file types by name: all that this release makes and that the gguf package can read."""
for _name in [name for name in FILE_TYPES if hasattr(c, f"GGML_TYPE_{name}")]:
    if _name not in gguf.GGMLQuantizationType.__members__ or _name == "NVFP4":  # which llama.cpp refuses to make
        del FILE_TYPES[_name]

_NOT_FOR_WEIGHTS = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")  # llama.cpp ends the process for these
TENSOR_TYPES = {kind.name: int(kind) for kind in gguf.GGMLQuantizationType if kind.name not in _NOT_FOR_WEIGHTS}

_PROGRESS = re.compile(r"^\[\s*\d+/\s*\d+\]")


@dataclass(frozen=True)
class Contents:
    """What a GGUF file holds: its size in bytes, tensors by type, and bits for each of its weights."""

    bytes: int
    types: Mapping[str, int]
    bits_per_weight: float


def check_type(name: str) -> str:
    """The name of a file type in llama.cpp's spelling. Raises `InputError` with the nearest ones."""
    known = {kind.upper(): kind for kind in FILE_TYPES}
    if (found := known.get(name.strip().upper())) is not None:
        return found
    near = difflib.get_close_matches(name.strip().upper(), known, n=3, cutoff=0.3)
    raise InputError(f"--quant: expected a type such as {', '.join(near or ['Q8_0', 'Q4_K_M'])}, found {name!r}")


def parse_override(text: str) -> tuple[str, int]:
    """PATTERN=TYPE as (regular expression, ggml type). Raises `InputError`."""
    pattern, _, name = text.rpartition("=")
    if not pattern or name.upper() not in TENSOR_TYPES:
        near = difflib.get_close_matches(name.upper(), TENSOR_TYPES, n=3, cutoff=0.3)
        raise InputError(
            f"--tensor-type: expected PATTERN=TYPE, such as 'attn_v=Q8_0', found {text!r}"
            f"{'; types near it: ' + ', '.join(near) if near else ''}"
        )
    try:
        re.compile(pattern)
    except re.error as e:
        raise InputError(f"--tensor-type: {pattern!r} is no regular expression: {e}") from e
    return pattern, TENSOR_TYPES[name.upper()]


def quantize(
    source: Path,
    target: Path,
    type_name: str,
    matrix: ImportanceMatrix | None = None,
    overrides: Mapping[str, int] | None = None,
    allow_requantize: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write `source` as `target` in a file type; `advance` is called for each tensor.

    Raises `ConversionError` with llama.cpp's reason; a half-written target is removed.
    """
    if overrides:
        _check_overrides(source, type_name, overrides)
    params = c.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[type_name]
    params.nthread = physical_cores()
    params.allow_requantize = allow_requantize
    means = matrix.means() if matrix is not None else {}
    kept = {name: np.ascontiguousarray(values, np.float32) for name, values in means.items()}
    if kept:
        params.imatrix = _imatrix_data(kept)
    if overrides:
        rows = [*overrides.items(), (None, c.GGML_TYPE_COUNT)]
        params.tt_overrides = (c.llama_model_tensor_override * len(rows))(
            *(c.llama_model_tensor_override(pattern.encode() if pattern else None, kind) for pattern, kind in rows)
        )

    def listen(line: str) -> None:
        if _PROGRESS.match(line):
            advance()

    with log_lines(listen) as reason:
        failed = c.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
        why = reason("it gave no reason").removeprefix("failed to quantize: ")
    if failed:
        target.unlink(missing_ok=True)
        if "requantizing" in why:
            why += "; --allow-requantize does it all the same, at a loss"
        if "iostream error" in why:
            why = f"cannot write {target.name}: is the disk full, or the folder not writable?"
        raise ConversionError(f"{type_name}: llama.cpp could not quantize {source.name}: {why}")


def _check_overrides(source: Path, type_name: str, overrides: Mapping[str, int]) -> None:
    """Raise `InputError` or `ConversionError` where llama.cpp would pass over an override and not say so."""
    if type_name in ("F32", "F16", "BF16"):
        raise InputError(f"--tensor-type: llama.cpp overrides types in quantized files only, found {type_name}")
    names = [t.name for t in read_header(source).tensors if len(t.shape) > 1 and not t.name.endswith("_norm.weight")]
    for pattern in overrides:
        if not any(re.search(pattern, name) for name in names):
            raise ConversionError(
                f"--tensor-type: {pattern!r} is part of no tensor's name; they are called as {names[-1]}"
            )


def _imatrix_data(means: Mapping[str, np.ndarray]) -> ctypes.Array[Any]:
    entries = [
        c.llama_model_imatrix_data(name.encode(), values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), values.size)
        for name, values in means.items()
    ]
    array: ctypes.Array[Any] = (c.llama_model_imatrix_data * (len(entries) + 1))(*entries, c.llama_model_imatrix_data())
    return array


def contents(path: Path) -> Contents:
    """Count what a GGUF file holds."""
    tensors = read_header(path).tensors
    if not tensors:
        raise ConversionError(f"{path}: expected weights, found a GGUF file without tensors")
    return Contents(
        path.stat().st_size,
        dict(Counter(tensor.type.name for tensor in tensors).most_common()),
        8 * sum(tensor.bytes for tensor in tensors) / sum(tensor.weights for tensor in tensors),
    )


def bits_at_most(type_name: str) -> int:
    """An upper bound for the bits a weight takes in a file type, by the digits in its name."""
    digits = re.search(r"\d+", type_name)
    return min(int(digits[0]) + 5, 32) if digits else 32


def describe_types(found: Mapping[str, int]) -> str:
    """Types with their counts, in words: '133 Q5_0, 13 Q8_0'."""
    return ", ".join(f"{count} {name}" for name, count in found.items())
