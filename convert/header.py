"""The header of a GGUF file with the types that the `gguf` package writes it in.

That package's own reader makes a numpy view of every string, seconds for a vocabulary of 150,000 tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.gguf_writer import GGUFValue, GGUFValueType

from convert.errors import ConversionError
from sgft_edge.store import header as runtime

Metadata = dict[str, GGUFValue]
"""Metadata by key, with the types that they are written in."""


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
    """Metadata and tensors of a GGUF file, and where in it their data start, in bytes.

    Metadata are decoded where they are asked for; `ConversionError` where a text among them is not UTF-8.
    """

    path: Path
    found: runtime.Header
    tensors: tuple[TensorInfo, ...]

    @property
    def data_start(self) -> int:
        return self.found.data_start

    @cached_property
    def metadata(self) -> Metadata:
        return self.starting_with("")

    def value(self, key: str) -> Any:
        """The value of a key, None where it is absent."""
        found = self.found.metadata.get(key)
        return self._typed(key, found).value if found else None

    def starting_with(self, prefix: str) -> Metadata:
        return {key: self._typed(key, value) for key, value in self.found.metadata.items() if key.startswith(prefix)}

    def _typed(self, key: str, value: runtime.Value) -> GGUFValue:
        try:
            items, kind = value.items(), GGUFValueType(value.type)
        except UnicodeDecodeError as e:
            raise ConversionError(f"{self.path}: expected UTF-8, found {key} damaged: {e.reason}") from e
        return GGUFValue(items[0], kind) if value.count is None else GGUFValue(items, GGUFValueType.ARRAY, kind)


def read_header(path: Path) -> Header:
    """Read a header. Raises `ModelError` as the runtime does, `ConversionError` for types that gguf does not know."""
    found = runtime.read_header(path)
    try:
        tensors = tuple(
            TensorInfo(tensor.name, tensor.shape, GGMLQuantizationType(tensor.type), tensor.offset)
            for tensor in found.tensors
        )
    except ValueError as e:
        raise ConversionError(f"{path}: expected tensors of types that gguf knows, found another: {e}") from e
    return Header(path, found, tensors)
