"""Importance matrices: how strongly each input of each linear layer is driven, which quantization then favours.

Kept in llama.cpp's GGUF form: for each matrix `NAME.in_sum2`, the squared inputs summed over all tokens, and
`NAME.counts`, how many those were (https://github.com/ggml-org/llama.cpp/tree/master/tools/imatrix).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convert.architectures import Layout
from convert.checkpoint import checkpoint_of
from convert.errors import ConversionError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TYPE, _SUMS, _COUNTS = "imatrix", ".in_sum2", ".counts"


@dataclass(frozen=True)
class ImportanceMatrix:
    """`sums` are the summed squares by GGUF tensor name, each of shape (columns,); `tokens` were read for each.

    `datasets` names what was read, in chunks of `chunk_tokens`.
    """

    sums: dict[str, NDArray[np.float32]]
    tokens: dict[str, int]
    datasets: tuple[str, ...] = ()
    chunks: int = 0
    chunk_tokens: int = 0

    def means(self) -> dict[str, NDArray[np.float32]]:
        """Mean squared inputs, what quantization weighs errors by; a matrix that nothing reached counts evenly."""
        return {
            name: (sums / np.float32(self.tokens[name])) if self.tokens[name] else np.ones_like(sums)
            for name, sums in self.sums.items()
        }


def collect(
    model: PreTrainedModel, samples: Sequence[Sequence[int]], dataset: str, advance: Callable[[], None] = lambda: None
) -> ImportanceMatrix:
    """Read token sequences with forward hooks on every linear layer inside the blocks, as llama-imatrix does.

    The output matrix is left out: a text's many other tokens matter as much to it as those that are read.
    """
    layout = Layout(checkpoint_of(model).config)
    sums: dict[str, torch.Tensor] = {}
    tokens: dict[str, int] = {}

    def note(name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        inputs = args[0].detach().float().flatten(0, -2)
        sums[name] = sums.get(name, 0) + inputs.square().sum(0, dtype=torch.float64)
        tokens[name] = tokens.get(name, 0) + len(inputs)

    hooks = []
    for module_name, module in model.named_modules():
        target = layout.name(f"{module_name}.weight") if isinstance(module, nn.Linear) else None
        if target is not None and target.startswith("blk."):
            hooks.append(module.register_forward_pre_hook(partial(note, target)))
    try:
        with torch.inference_mode():
            for sample in samples:
                model.get_decoder()(input_ids=torch.tensor([list(sample)]), use_cache=False)
                advance()
    finally:
        for hook in hooks:
            hook.remove()
    arrays = {name: value.float().numpy() for name, value in sums.items()}
    broken = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if broken:
        raise ConversionError(f"the inputs of {broken[0]} are no numbers (NaN or infinity): the weights are damaged")
    return ImportanceMatrix(arrays, tokens, (dataset,), len(samples), max(map(len, samples), default=0))


def write_imatrix(path: Path, matrix: ImportanceMatrix) -> None:
    """Write llama.cpp's GGUF form."""
    writer = gguf.GGUFWriter(None, _TYPE)
    del writer.kv_data[0]["general.architecture"]
    writer.add_type(_TYPE)
    writer.add_array("imatrix.datasets", list(matrix.datasets))
    writer.add_uint32("imatrix.chunk_count", matrix.chunks)
    writer.add_uint32("imatrix.chunk_size", matrix.chunk_tokens)
    for name in sorted(matrix.sums):
        writer.add_tensor(name + _SUMS, matrix.sums[name].reshape(1, -1))
        writer.add_tensor(name + _COUNTS, np.array([[matrix.tokens[name]]], np.float32))
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_imatrix(path: Path) -> ImportanceMatrix:
    """Read llama.cpp's GGUF form. Raises `ConversionError`."""
    try:
        reader = gguf.GGUFReader(path)
        kind = reader.fields["general.type"].contents()
    except Exception as e:  # its reader raises many kinds for a damaged file
        raise ConversionError(f"{path}: expected an importance matrix in GGUF form: {e}") from e
    if kind != _TYPE:
        raise ConversionError(f"{path}: expected a GGUF file of type {_TYPE!r}, found {kind!r}")
    arrays = {tensor.name: tensor.data for tensor in reader.tensors}
    names = [name.removesuffix(_SUMS) for name in arrays if name.endswith(_SUMS)]
    if missing := [name for name in names if name + _COUNTS not in arrays]:
        raise ConversionError(f"{path}: {missing[0]} has sums and no count")
    for name in names:
        if arrays[name + _COUNTS].size != 1:
            raise ConversionError(f"{path}: {name} belongs to a mixture of experts, which is not supported")
        for values in (arrays[name + _SUMS], arrays[name + _COUNTS]):
            if not (np.isfinite(values).all() and (values >= 0).all()):
                raise ConversionError(f"{path}: expected sums and counts of at least 0 for {name}, found others")
    keys = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")
    if missing := [key for key in keys if key not in reader.fields]:
        raise ConversionError(f"{path}: expected {missing[0]} in its metadata, found none")
    if not names:
        raise ConversionError(f"{path}: expected sums of squared inputs, found none")
    return ImportanceMatrix(
        {name: np.array(arrays[name + _SUMS], np.float32).reshape(-1) for name in names},
        {name: int(arrays[name + _COUNTS].reshape(-1)[0]) for name in names},
        tuple(reader.fields["imatrix.datasets"].contents()),
        int(reader.fields["imatrix.chunk_count"].contents()),
        int(reader.fields["imatrix.chunk_size"].contents()),
    )
