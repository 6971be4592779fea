"""A model's configuration and tensors, one tensor at a time: from safetensors, or from a model in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from convert.errors import ConversionError, Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """One tensor by the name that transformers gives it; `load` reads it, shape (rows, columns) or (n,)."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a model is made of. `config` is that of transformers, with its defaults filled in."""

    config: dict[str, Any]
    tensors: tuple[Tensor, ...]

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return sum(prod(tensor.shape) for tensor in self.tensors)

    @property
    def dtype(self) -> torch.dtype:
        """The type of its matrices."""
        return next(tensor.load().dtype for tensor in self.tensors if len(tensor.shape) > 1)


def open_checkpoint(folder: Path) -> Checkpoint:
    """The model in a folder that transformers wrote; nothing but names and shapes is read now.

    Raises `ConversionError` for missing or damaged files and `Unsupported` for pickled ones.
    """
    tensors: list[Tensor] = []
    for shard in _shards(folder):
        try:
            with safe_open(shard, framework="pt") as file:
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as e:
            raise ConversionError(f"{shard}: expected a safetensors file, found one that cannot be read: {e}") from e
        tensors += [Tensor(name, shape, partial(_load, shard, name)) for name, shape in shapes.items()]
    return Checkpoint(read_config(folder), tuple(tensors))


def _load(shard: Path, name: str) -> torch.Tensor:
    """Read one tensor. The file is opened for it alone: a mapping that stays open keeps in memory all that was read."""
    with safe_open(shard, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
    return tensor


def checkpoint_of(model: PreTrainedModel) -> Checkpoint:
    """The model in memory. A matrix that two modules share appears once, under its first name."""
    seen: dict[tuple[int, tuple[int, ...]], str] = {}
    tensors: list[Tensor] = []
    for name, value in model.state_dict().items():
        place = (value.data_ptr(), tuple(value.shape))
        if value.numel() and seen.setdefault(place, name) != name:
            continue
        tensors.append(Tensor(name, tuple(value.shape), value.detach))
    return Checkpoint({**model.config.to_dict(), "architectures": [type(model).__name__]}, tuple(tensors))


def read_config(folder: Path) -> dict[str, Any]:
    """The model's configuration with transformers' defaults. Raises `ConversionError`."""
    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(folder, trust_remote_code=False).to_dict()
    except Exception as e:  # its readers raise many kinds
        reason = " ".join(str(e).split())[:200]
        raise ConversionError(f"{folder}: expected a config.json that transformers can read: {reason}") from e
    return config


def _shards(folder: Path) -> list[Path]:
    if (whole := folder / "model.safetensors").is_file():  # which transformers takes, whatever lies beside it
        return [whole]
    index = folder / INDEX
    if index.is_file():
        shards = [folder / name for name in _indexed(index)]
        if missing := [shard.name for shard in shards if not shard.is_file()]:
            raise ConversionError(
                f"{folder}: missing {', '.join(missing)} of {len(shards)} files that {INDEX} names: fetch them again"
            )
        return shards
    shards = sorted(folder.glob("model*.safetensors"))
    if not shards:
        pickled = [path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)]
        if pickled:
            raise Unsupported(
                f"{folder}: expected safetensors, found {pickled[0]}, a pickle, which can run code when it is read: "
                "save the model with save_pretrained(safe_serialization=True)"
            )
        raise ConversionError(f"{folder}: expected model.safetensors, found no weights: fetch them")
    _check_complete(folder, shards)
    return shards


def _indexed(index: Path) -> list[str]:
    """The files that an index names."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise ConversionError(f"{index}: expected a 'weight_map' of tensors to files, found none: {e}") from e
    if not names or not all(isinstance(name, str) for name in names):
        raise ConversionError(f"{index}: expected a 'weight_map' of tensors to files, found {str(names)[:60]}")
    return sorted(names)


def _check_complete(folder: Path, shards: list[Path]) -> None:
    """Shards without an index still carry their count in their names: model-00001-of-00003.safetensors."""
    counts = {shard.stem.rpartition("-of-")[2] for shard in shards if "-of-" in shard.stem}
    for count in counts:
        if count.isdecimal() and int(count) != len(shards):
            raise ConversionError(f"{folder}: found {len(shards)} of {int(count)} shards: fetch the others")
