"""An adapter's weights added to its base's."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from convert.errors import ConversionError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def merge(model: PeftModel) -> PreTrainedModel:
    """The base with the adapter's weights added, in the base's type; the adapter is gone from it.

    Raises `ConversionError` where that changes nothing: the adapter was never trained, or the type is too coarse.
    """
    before = _digests(model.get_base_model())
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError) as e:
        raise ConversionError(f"the adapter cannot be merged: {' '.join(str(e).split())[:200]}") from e
    after = _digests(merged)
    if not any(after.get(name) != digest for name, digest in before.items()):
        raise ConversionError("merging changes no weight of the base: the adapter is empty or was never trained")
    return merged


def _digests(model: torch.nn.Module) -> dict[str, bytes]:
    """Digests of all parameters by the names that they have without an adapter."""
    out = {}
    for name, value in model.state_dict().items():
        if ".lora_" in name or ".modules_to_save." in name:
            continue
        name = name.replace(".base_layer.", ".").replace(".original_module.", ".")
        raw = value.detach().contiguous().view(torch.uint8).numpy()
        out[name] = hashlib.blake2b(raw, digest_size=16).digest()
    return out
