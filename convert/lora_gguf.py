"""A LoRA as llama.cpp's adapter file: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-adapter.cpp

llama.cpp scales an adapter by alpha / rank, with one alpha for the file and each matrix's own rank. What PEFT scales
otherwise (rsLoRA, alphas that differ by layer) is folded into `lora_b`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
from gguf.constants import GGMLQuantizationType, Keys
from gguf.gguf_writer import GGUFValue, GGUFValueType

from convert.adapter import AdapterFolder
from convert.architectures import Layout
from convert.checkpoint import checkpoint_of
from convert.errors import ConversionError, Unsupported
from convert.header import Metadata
from convert.model_gguf import FLOAT_TYPES, Planned, stored_type, write

if TYPE_CHECKING:
    from peft import PeftModel

TYPES = ("F32", "F16", "Q8_0")


def write_lora(
    path: Path,
    model: PeftModel,
    adapter: AdapterFolder,
    about: Metadata,
    type_name: str,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write the adapter of a model; `lora_a` is (rank, inputs), `lora_b` (outputs, rank).

    Raises `Unsupported` and `ConversionError`.
    """
    adapter.check_separable()
    if model.replaced_weights:
        raise Unsupported(
            f"{adapter.path}: it replaces the base's {model.replaced_weights[0]}, which has no form in an adapter's "
            "GGUF: use --format merged"
        )
    layout = Layout(checkpoint_of(model.get_base_model()).config)
    alpha = float(model.peft_config["default"].lora_alpha)
    tensors = plan(model, layout, alpha, FLOAT_TYPES[type_name][0])
    if not tensors:
        raise ConversionError(f"{adapter.path}: expected LoRA matrices, found none")
    writer = gguf.GGUFWriter(None, layout.architecture.name)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    writer.add_file_type(FLOAT_TYPES[type_name][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if adapter.invocation:
        tokens = GGUFValue(adapter.invocation, GGUFValueType.ARRAY, GGUFValueType.UINT32)
        writer.kv_data[0][Keys.Adapter.ALORA_INVOCATION_TOKENS] = tokens
    writer.kv_data[0].update(about)
    write(path, writer, tensors, advance)


def plan(model: PeftModel, layout: Layout, alpha: float, wanted: GGMLQuantizationType) -> list[Planned]:
    """The tensors of an adapter's file. Raises `ConversionError` where all of them are zero."""
    from peft.tuners.lora import LoraLayer

    planned: list[Planned] = []
    changes = False
    for module_name, module in model.get_base_model().named_modules():
        if not isinstance(module, LoraLayer):
            continue
        name = f"{module_name}.weight"
        target = layout.name(name)
        if module.lora_embedding_A:  # both stored the other way round than those of linear layers
            a, b = module.lora_embedding_A["default"].T, module.lora_embedding_B["default"]
        else:
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
        changes = changes or bool(a.any() and b.any())
        rank = module.r["default"]
        factor = module.scaling["default"] * rank / alpha if alpha else 1.0
        if not math.isclose(factor, 1.0, rel_tol=1e-9):
            b = b * factor
        b = layout.rows(name, b)
        for suffix, matrix in (("lora_a", a), ("lora_b", b)):
            shape = tuple(matrix.shape)
            kind = stored_type(f"{target}.{suffix}", shape, wanted)
            planned.append(Planned(f"{target}.{suffix}", shape, kind, matrix.detach))
    if planned and not (changes and alpha):
        raise ConversionError("the adapter changes nothing: its matrices or its alpha are zero; was it trained?")
    return planned
