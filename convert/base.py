"""The model that is exported, or that an adapter was trained on: a folder, a GGUF file, a known name, or the hub."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import logging

from convert import vocabulary
from convert.architectures import architecture_of
from convert.checkpoint import open_checkpoint, read_config
from convert.errors import ConversionError, Unsupported
from convert.header import Metadata, read_header
from sgft_edge.host.files import place
from sgft_edge.store.digests import file_digest
from sgft_edge.store.manifest import Manifest
from sgft_edge.store.places import entry_for, resolve

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HUB_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.jinja", "README.md")


@dataclass(frozen=True)
class Base:
    """A model by the name that was given for it. `path` is a folder that transformers wrote, or a GGUF file."""

    name: str
    path: Path

    @property
    def is_gguf(self) -> bool:
        return self.path.is_file()

    @property
    def is_packed(self) -> bool:
        """Whether the weights must be unpacked: those of a GGUF file, and of a folder in 4 or 8 bits."""
        return self.is_gguf or bool(read_config(self.path).get("quantization_config"))

    @property
    def title(self) -> str:
        """How it is called elsewhere: a known model's name, the hub's, or that of the folder or file."""
        if self.is_gguf and (entry := entry_for(self.path)) is not None:
            return entry.name
        return Path(self.name).name if place(self.name).exists() else self.name

    @property
    def architecture(self) -> str:
        """The name of its architecture: that of transformers' class for a folder, llama.cpp's for a GGUF file."""
        if self.is_gguf:
            return str(read_header(self.path).value("general.architecture"))
        return str((read_config(self.path).get("architectures") or ["none"])[0])

    def load(
        self, dtype: torch.dtype = torch.float32, any_architecture: bool = False, packing: Any = None
    ) -> PreTrainedModel:
        """The model in memory; a GGUF file and a 4-bit checkpoint are unpacked. Raises `ConversionError`.

        With `packing`, a quantization of transformers, a folder's weights are packed as it says.
        """
        from transformers import AutoModelForCausalLM, GgufConfig  # seconds, and a folder's tensors do without

        options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True, "local_files_only": True}
        if self.is_gguf:
            folder = self.path.parent
            options |= {"gguf_file": self.path.name, "quantization_config": GgufConfig(dequantize=True)}
        else:
            folder = self.path
            checkpoint = open_checkpoint(folder)  # says in one line what transformers would say in many
            if not any_architecture:
                architecture_of(checkpoint.config)
            options |= {"use_safetensors": True} | ({"quantization_config": packing} if packing else {})
        try:
            with _quiet():
                model, about = AutoModelForCausalLM.from_pretrained(folder, **options)
        except Exception as e:  # its loaders raise many kinds
            reason = " ".join(str(e).split())[:300]
            raise ConversionError(f"{self.path}: transformers cannot load it: {reason}") from e
        if lost := sorted([*about["missing_keys"], *about["unexpected_keys"]]):
            raise ConversionError(f"{self.path}: {len(lost)} tensors are missing or not expected: {lost[0]}")
        if not any_architecture:
            architecture_of({"architectures": [type(model).__name__]})
        return (model if packing else _unpacked(model, dtype)).eval()

    def tokenizer(self, config: Mapping[str, Any], pre: str | None = None) -> Metadata:
        """The tokenizer as GGUF metadata, verbatim where the base is a GGUF file."""
        return vocabulary.from_gguf(self.path) if self.is_gguf else vocabulary.from_folder(self.path, config, pre)

    def digest(self) -> str:
        """SHA-256 of the weights: of the GGUF file, or of the names and digests of all safetensors files."""
        if self.is_gguf:
            return file_digest(self.path)
        parts = [f"{path.name} {file_digest(path)}" for path in sorted(self.path.glob("*.safetensors"))]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def find_base(name: str) -> Base:
    """A base by folder, GGUF file, name in the manifest, or OWNER/NAME on the hub, in this order.

    Raises `ConversionError`, and `ModelError` for a known model that is not on this machine.
    """
    path = place(name)
    if path.is_dir():
        read_config(path)
        return Base(name, path)
    if name.endswith(".gguf") or path.is_file():
        if (kind := read_header(path).value("general.type")) not in (None, "model"):
            raise ConversionError(f"{path}: expected a model, found a GGUF file of type {kind!r}")
        return Base(name, path)
    if name in Manifest.load().entries:
        return Base(name, resolve(name))
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return Base(name, _from_hub(name))
    raise ConversionError(
        f"base {name!r}: expected a folder, a GGUF file, a name from `sgft-edge models list`, or OWNER/NAME on the hub"
    )


def _from_hub(name: str) -> Path:
    import huggingface_hub

    try:
        with _quiet():
            return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except Exception as e:  # each release has an error tree of its own
        reason = " ".join(str(e).split())[:200]
        raise ConversionError(f"base {name!r}: no such folder here, and the hub does not deliver it: {reason}") from e


def _unpacked(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model with plain weights."""
    settings = getattr(model.config, "quantization_config", None)
    if settings is None or getattr(settings, "dequantize", False):
        return model
    try:
        model = model.dequantize()
    except Exception as e:
        raise Unsupported(
            f"its {settings.quant_method} weights cannot be unpacked here ({' '.join(str(e).split())[:100]}): "
            "name the unquantized base with --base"
        ) from e
    return model.to(dtype)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars and remarks of transformers out of our own output."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its GGUF reader shows a bar in any case
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
