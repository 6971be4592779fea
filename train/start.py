"""An adapter that a training goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft.utils import load_peft_weights, set_peft_model_state_dict

from convert.record import TrainingRecord
from sgft_edge.errors import InputError
from sgft_edge.store.digests import file_digest

if TYPE_CHECKING:
    from peft import PeftModel

    from convert.base import Base

_FORM = ("r", "lora_alpha", "use_rslora", "use_dora", "layers_to_transform", "target_modules")


def start_from(model: PeftModel, folder: Path, base: Base) -> str:
    """Give the fresh adapter of `model` the weights in `folder`; returns their SHA-256.

    Raises `InputError` where they are of another form than the settings ask for, or were trained on another base,
    `ConversionError` where their record is damaged.
    """
    given = _json(folder / "adapter_config.json")
    wanted = model.peft_config["default"].to_dict()
    other = [name for name in _FORM if _comparable(given.get(name)) != _comparable(wanted[name])]
    if other:
        name = other[0]
        raise InputError(f"adapter: {folder}: expected {name} {wanted[name]}, found {given.get(name)}")
    record = TrainingRecord.read(folder)
    if record is not None and record.base.digest != base.digest():
        found = record.base.digest[:16]
        raise InputError(f"adapter: {folder}: was trained on another base than {base.name} (SHA-256 {found})")
    try:
        loaded = set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    except Exception as e:
        raise InputError(f"adapter: {folder}: cannot be loaded: {str(e).partition(chr(10))[0]}") from e
    missing = [name for name in loaded.missing_keys if ".lora_" in name]
    if missing or loaded.unexpected_keys:
        raise InputError(f"adapter: {folder}: does not fit the base: {[*missing, *loaded.unexpected_keys][0]}")
    return file_digest(folder / "adapter_model.safetensors")


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f"adapter: cannot read {path}: {getattr(e, 'strerror', None) or e}") from e
    return found


def _comparable(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | list) else value
