"""The header of a GGUF file: its metadata and what it says of its tensors; no weights are read.

Values stay bytes until they are asked for, so that a vocabulary of 150,000 tokens costs a walk over it and no more.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sgft_edge.errors import ModelError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_WHOLE = {0, 1, 2, 3, 4, 5, 10, 11}
_LENGTH = struct.Struct("<Q")
_ALIGNMENT = "general.alignment"

# What a header may take, whatever it announces. Those of the largest models take a tenth of it.
_MOST_BYTES = 2**26
_MOST_ENTRIES = 2**17  # of the metadata, and tensors
_MOST_LAYERS = 2**16
_MOST_DIMENSIONS = 4
_MOST_WEIGHTS = 2**63 - 1  # of one tensor


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the metadata as it stands in the file; `type` is the format's number, for an array that of its items.

    `count` is the length of an array, None for a single value.
    """

    type: int
    count: int | None
    raw: bytes

    def items(self) -> list[Any]:
        """The items of an array, or the single value. Raises `UnicodeDecodeError` for text that is not UTF-8."""
        count = 1 if self.count is None else self.count
        if self.type != _STRING:
            return list(struct.unpack(f"<{count}{_CODES[self.type]}", self.raw))
        texts, at = [], 0
        for _ in range(count):
            start = at + _LENGTH.size
            at = start + _LENGTH.unpack_from(self.raw, at)[0]
            texts.append(self.raw[start:at].decode())
        return texts


@dataclass(frozen=True, slots=True)
class Tensor:
    """What the header says of one tensor.

    `shape` is (rows, columns) or (n,), `type` the number of ggml's type, `offset` in bytes from where the data start.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def weights(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """Metadata by key, tensors, and where in the file the tensors' data start, in bytes."""

    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    data_start: int

    def text(self, key: str) -> str | None:
        """A text among the metadata; None where there is none."""
        found = self.metadata.get(key)
        if found is None or found.type != _STRING or found.count is not None:
            return None
        return found.raw[_LENGTH.size :].decode("utf-8", "replace")

    def numbers(self, key: str) -> list[int]:
        """A whole number of the metadata, or an array of them: one for each layer. [0] where there is none."""
        found = self.metadata.get(key)
        if found is None or found.type not in _WHOLE or found.count == 0 or (found.count or 1) > _MOST_LAYERS:
            return [0]
        return found.items()

    def length(self, key: str) -> int:
        """The length of an array of the metadata; 0 where there is none."""
        found = self.metadata.get(key)
        return found.count or 0 if found is not None else 0


def check_gguf(path: Path) -> None:
    """Raise `ModelError` unless the file can be read and starts as GGUF files do."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as e:
        raise ModelError(f"cannot read {path}: {e.strerror or e}") from e
    if magic != _MAGIC:
        raise ModelError(f"{path} is not a GGUF file: it starts with {magic!r}, expected {_MAGIC!r}")


def read_header(path: Path) -> Header:
    """Read the header of a little-endian GGUF file of version 2 or 3. Raises `ModelError` for all others, and damage.

    Time and memory are bounded by what the file holds, and by 64 MiB, not by what it announces.
    """
    check_gguf(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            with mmap.mmap(file.fileno(), min(size, _MOST_BYTES), access=mmap.ACCESS_READ) as data:
                return _Walk(data, "it ends too early" if size <= _MOST_BYTES else "its header is too long").header()
    except (OSError, ValueError, struct.error, OverflowError) as e:
        raise ModelError(f"{path}: expected a whole GGUF file of version 2 or 3, found a damaged one: {e}") from e


def peek(path: Path, key: str) -> str | None:
    """A text among the metadata of a file, None where there is none. Raises `ModelError` for a damaged file."""
    return read_header(path).text(key)


class _Walk:
    """A walk over a header, which never leaves it. Raises `ValueError` and `struct.error` for damage."""

    def __init__(self, data: mmap.mmap, beyond: str) -> None:
        self._data, self._end, self._beyond = data, len(data), beyond
        self._at = len(_MAGIC)

    def header(self) -> Header:
        version, tensors, entries = self._numbers("IQQ")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS
            raise ValueError("it is big-endian" if swapped else f"its version is {version}")
        if max(tensors, entries) > _MOST_ENTRIES:
            raise ValueError(f"it announces {tensors} tensors and {entries} keys, more than {_MOST_ENTRIES}")
        metadata: dict[str, Value] = {}
        for _ in range(entries):
            key = self._new("key", metadata)
            metadata[key] = self._value()
        infos: dict[str, Tensor] = {}
        for _ in range(tensors):
            name = self._new("tensor", infos)
            infos[name] = self._tensor(name)
        alignment = _alignment(metadata)
        return Header(metadata, tuple(infos.values()), -(-self._at // alignment) * alignment)

    def _new(self, what: str, known: Mapping[str, object]) -> str:
        name = self._take(*self._numbers("Q")).decode()
        if name in known or not name:
            raise ValueError(f"it has two of the {what} {name[:64]!r}" if name else f"a {what} has no name")
        return name

    def _value(self) -> Value:
        (kind,) = self._numbers("I")
        if kind != _ARRAY:
            return Value(kind, None, self._items(kind, 1))
        kind, count = self._numbers("IQ")
        return Value(kind, count, self._items(kind, count))

    def _items(self, kind: int, count: int) -> bytes:
        if kind in _CODES:
            return self._take(count * struct.calcsize(_CODES[kind]))
        if kind != _STRING:  # an array of arrays among them, which no reader takes
            raise ValueError(f"it has a value of the unknown type {kind}")
        if count * _LENGTH.size > self._end - self._at:
            raise ValueError(self._beyond)
        length, data, at = _LENGTH.unpack_from, self._data, self._at
        for _ in range(count):
            at += _LENGTH.size + length(data, at)[0]  # beyond the end it raises at the next item, or is seen below
        return self._take(at - self._at)

    def _tensor(self, name: str) -> Tensor:
        (dimensions,) = self._numbers("I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"a tensor has {dimensions} dimensions, more than {_MOST_DIMENSIONS}")
        *shape, kind, offset = self._numbers(f"{dimensions}QIQ")
        tensor = Tensor(name, tuple(reversed(shape)), kind, offset)
        if not 0 < tensor.weights <= _MOST_WEIGHTS:
            raise ValueError(f"a tensor has the shape {tensor.shape}")
        return tensor

    def _numbers(self, codes: str) -> tuple[int, ...]:
        layout = f"<{codes}"
        return struct.unpack(layout, self._take(struct.calcsize(layout)))

    def _take(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > self._end:
            raise ValueError(self._beyond)
        return self._data[start : self._at]


def _alignment(metadata: Mapping[str, Value]) -> int:
    """What the start of the data is a multiple of, in bytes."""
    found = metadata.get(_ALIGNMENT, Value(4, None, (32).to_bytes(4, "little")))
    alignment = int.from_bytes(found.raw, "little")
    if (found.type, found.count) != (4, None) or alignment.bit_count() != 1:
        raise ValueError(f"expected a power of two for {_ALIGNMENT}, found otherwise")
    return alignment
