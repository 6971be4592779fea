"""A checkpoint as a GGUF file, tensor by tensor, so that memory holds one of them at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType
from numpy.typing import NDArray

from convert import vocabulary
from convert.architectures import Layout, add_hyperparameters
from convert.checkpoint import Checkpoint, Tensor
from convert.errors import ConversionError
from convert.header import Metadata

FLOAT_TYPES = {
    "F32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "F16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "BF16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "Q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
"""What can be written without llama.cpp: the type of the matrices, and the file's."""


_FLUSH = 200_000_000  # bytes after which the disk is set to work
_CHUNK = 8_000_000  # values that are converted at once


@dataclass(frozen=True)
class Planned:
    """One tensor of the file to be: `shape` is (rows, columns) or (n,), `load` gives the values in that shape."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    load: Callable[[], torch.Tensor]

    @property
    def bytes(self) -> int:
        block, size = GGML_QUANT_SIZES[self.type]
        return prod(self.shape) // int(block) * int(size)


def write_model(
    path: Path,
    checkpoint: Checkpoint,
    tokenizer: Metadata,
    about: Metadata,
    type_name: str,
    hyperparameters: Metadata | None = None,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write a whole model; vectors and norms stay F32, as llama.cpp wants them.

    `about` is the file's `general.*` and other descriptive metadata; `hyperparameters`, where given, replace those
    that the configuration tells. Raises `Unsupported` and `ConversionError`.
    """
    layout = Layout(checkpoint.config)
    writer = gguf.GGUFWriter(None, layout.architecture.name)
    if hyperparameters is None:
        add_hyperparameters(writer, checkpoint.config)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(FLOAT_TYPES[type_name][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.kv_data[0].update({**(hyperparameters or {}), **tokenizer, **about})
    write(path, writer, plan(checkpoint, layout, FLOAT_TYPES[type_name][0], vocabulary.size(tokenizer)), advance)


def plan(checkpoint: Checkpoint, layout: Layout, wanted: GGMLQuantizationType, tokens: int) -> list[Planned]:
    """The tensors of a model's file. Raises `ConversionError` where tokenizer and embedding do not belong together."""
    planned = []
    for tensor in (*layout.extra(), *checkpoint.tensors):
        name = tensor.name if tensor.name == "rope_freqs.weight" else layout.name(tensor.name)
        if name is None:
            continue
        shape = tensor.shape
        if name == "token_embd.weight":
            if tokens > shape[0]:
                raise ConversionError(f"the tokenizer has {tokens} tokens, the embedding {shape[0]} rows")
            if layout.architecture.id is gguf.MODEL_ARCH.GEMMA3:
                shape = (tokens, *shape[1:])  # its rows beyond the vocabulary are padding
        planned.append(Planned(name, shape, stored_type(name, shape, wanted), _loader(layout, tensor, shape)))
    return planned


def _loader(layout: Layout, tensor: Tensor, shape: tuple[int, ...]) -> Callable[[], torch.Tensor]:
    return lambda: layout.values(tensor.name, tensor.load()[: shape[0]])


def stored_type(name: str, shape: tuple[int, ...], wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """The type that a tensor gets: F32 for vectors and norms, F16 where a row is no multiple of the type's block."""
    if len(shape) < 2 or name.endswith("_norm.weight"):
        return GGMLQuantizationType.F32
    return wanted if shape[-1] % GGML_QUANT_SIZES[wanted][0] == 0 else GGMLQuantizationType.F16


def write(path: Path, writer: gguf.GGUFWriter, tensors: Iterable[Planned], advance: Callable[[], None]) -> None:
    """Write metadata and tensors. Raises `ConversionError` for values that are no numbers or do not fit."""
    tensors = list(tensors)
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.bytes, tensor.type)
    writer.write_header_to_file(path)
    try:
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        file = writer.fout[0]
        written = 0
        with ThreadPoolExecutor(1) as pool:  # the disk works while the next tensors are converted
            for tensor in tensors:
                writer.write_padding(file, file.tell())
                for part in _stored(tensor):
                    part.tofile(file)
                writer.write_padding(file, tensor.bytes)
                written += tensor.bytes
                if written > _FLUSH:
                    pool.submit(os.fsync, file.fileno())
                    written = 0
                advance()
    finally:
        writer.close()


def _stored(tensor: Planned) -> Iterator[NDArray[Any]]:
    """The tensor's bytes, some rows at a time: a wide matrix and its copies in several types would fill the memory."""
    values = tensor.load()
    for rows in values.split(max(1, _CHUNK // max(1, prod(values.shape[1:])))):
        array = (rows if rows.dtype is torch.float16 else rows.float()).contiguous().numpy()
        stored: NDArray[Any] = gguf.quants.quantize(array, tensor.type)
        if not np.isfinite(stored if tensor.type is GGMLQuantizationType.F16 else array).all():
            if np.isfinite(array).all():
                raise ConversionError(f"the tensor {tensor.name} holds values too large for F16: take BF16 or F32")
            raise ConversionError(f"the tensor {tensor.name} holds values that are no numbers (NaN or infinity)")
        yield stored
