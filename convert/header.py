"""The header of a GGUF file: metadata and what is said of its tensors, in a fraction of the time that the data take.

The `gguf` package's reader makes a numpy view of every string, seconds for a vocabulary of 150,000 tokens. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType
from gguf.gguf_writer import GGUFValue, GGUFValueType

from convert.errors import ConversionError
from sgft_edge.store import check_gguf

Metadata = dict[str, GGUFValue]
"""Metadata by key, with the types that they are written in."""

_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
_VERSIONS = (2, 3)


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor: `shape` (rows, columns) or (n,), `offset` in bytes from `data_start`."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int

    @property
    def weights(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        block, size = GGML_QUANT_SIZES[self.type]
        return self.weights // int(block) * int(size)


@dataclass(frozen=True)
class Header:
    """Metadata and tensors of a GGUF file, and where in it their data start, in bytes."""

    metadata: Metadata
    tensors: tuple[TensorInfo, ...]
    data_start: int

    def value(self, key: str) -> Any:
        """The value of a key, None where it is absent."""
        found = self.metadata.get(key)
        return found.value if found else None

    def starting_with(self, prefix: str) -> Metadata:
        return {key: value for key, value in self.metadata.items() if key.startswith(prefix)}


def read_header(path: Path) -> Header:
    """Read a little-endian GGUF file's header. Raises `ModelError` for other files, `ConversionError` for damage."""
    check_gguf(path)
    try:
        with path.open("rb") as file:
            return _header(file)
    except (OSError, ValueError, struct.error, MemoryError, OverflowError, KeyError) as e:
        raise ConversionError(f"{path}: expected a whole GGUF file of version 2 or 3, found a damaged one: {e}") from e


def _header(file: BinaryIO) -> Header:
    _, version, tensors, keys = struct.unpack("<4sIQQ", _read(file, 24))
    if version not in _VERSIONS:
        raise ValueError(f"its version is {version}")
    metadata: Metadata = {}
    for _ in range(keys):
        key = _string(file)
        metadata[key] = _value(file, GGUFValueType(_number(file, "I")))
    infos = tuple(_tensor(file) for _ in range(tensors))
    alignment = metadata["general.alignment"].value if "general.alignment" in metadata else GGUF_DEFAULT_ALIGNMENT
    return Header(metadata, infos, -(-file.tell() // alignment) * alignment)


def _tensor(file: BinaryIO) -> TensorInfo:
    name, dimensions = _string(file), _number(file, "I")
    shape = struct.unpack(f"<{dimensions}Q", _read(file, 8 * dimensions))
    kind, offset = struct.unpack("<IQ", _read(file, 12))
    return TensorInfo(name, tuple(reversed(shape)), GGMLQuantizationType(kind), offset)


def _value(file: BinaryIO, kind: GGUFValueType) -> GGUFValue:
    if kind is not GGUFValueType.ARRAY:
        return GGUFValue(_string(file) if kind is GGUFValueType.STRING else _number(file, _SCALARS[kind]), kind)
    inner, count = GGUFValueType(_number(file, "I")), _number(file, "Q")
    if inner is GGUFValueType.STRING:
        return GGUFValue([_string(file) for _ in range(count)], kind, inner)
    code = _SCALARS[inner]
    return GGUFValue(list(struct.unpack(f"<{count}{code}", _read(file, count * struct.calcsize(code)))), kind, inner)


def _number(file: BinaryIO, code: str) -> Any:
    return struct.unpack("<" + code, _read(file, struct.calcsize(code)))[0]


def _string(file: BinaryIO) -> str:
    return _read(file, _number(file, "Q")).decode()


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError("it ends too early")
    return data
