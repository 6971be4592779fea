"""Tiny random models and adapters in the form that transformers and PEFT write, with real tokenizers' files.

The models' sizes are those of `tiny`: rows of 256, two layers; Gemma has six, so that one has full attention.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFValueType
from peft import LoraConfig, get_peft_model
from tiny import (
    CHAT_TEMPLATE,
    CHATML_TOKENS,
    CONTEXT,
    CORPUS,
    FEED_FORWARD,
    HEAD_SIZE,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    Entry,
    Tokenizer,
)
from tokenizers import AddedToken, decoders, normalizers, processors
from tokenizers import Tokenizer as BpeTokenizer
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from convert.unpack import write_tokenizer

_CONFIGS: Mapping[str, type[PretrainedConfig]] = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gemma3": Gemma3TextConfig,
}
ARCHITECTURES = tuple(_CONFIGS)
SPACE = "\u2581"


def training_record(**base: str) -> dict[str, object]:
    """What a training may have recorded, of a Llama with these facts."""
    llama = {"name": "llama", "architecture": "llama", "kind": "safetensors", "digest": "b" * 64}
    return {
        "base": llama | {"tokenizer_digest": "a" * 64} | base,
        "data": {"examples": 1244, "files": [{"file": "train.jsonl", "sha256": "d" * 64, "rows": 1244}]},
        "processes": 1,
        "prompts_digest": "c" * 64,
        "settings": {"role": "guide", "rank": 4, "seed": 7, "rate": 0.0002},
        "versions": {"torch": "2.0"},
        "metrics": {"step": 3},
    }


def bpe_files(folder: Path, vocab: Tokenizer) -> None:
    """Write tokenizer.json and tokenizer_config.json for a byte-level BPE in GGUF's form, with a chat template."""
    write_tokenizer(folder, {"tokenizer.chat_template": Entry(CHAT_TEMPLATE, GGUFValueType.STRING), **vocab})


def sentencepiece_files(folder: Path, spaced: bool = True, size: int = 400, fast_only: bool = False) -> int:
    """Train a SentencePiece BPE with byte fallback on `CORPUS` and write its files as Llama's and Gemma's makers do.

    `spaced`: a text's first word is one after a space (Llama, Mistral), or is not (Gemma). With `fast_only` there is
    no tokenizer.model, as in folders that fine-tuning tools write. Returns how many tokens it has.
    """
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "corpus.txt"
    text.write_text(CORPUS, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=size,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=spaced,
        control_symbols=list(CHATML_TOKENS[1:]),
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    text.unlink()
    (folder / "tokenizer.vocab").unlink()
    model = sentencepiece.SentencePieceProcessor()
    model.LoadFromFile(str(folder / "tokenizer.model"))
    _sentencepiece_json(folder, [model.IdToPiece(i) for i in range(size)], spaced)
    if fast_only:
        (folder / "tokenizer.model").unlink()
    return size


_SPECIAL = ("<unk>", "<s>", "</s>", *CHATML_TOKENS[1:])


def _sentencepiece_json(folder: Path, pieces: list[str], spaced: bool) -> None:
    """tokenizer.json and tokenizer_config.json of a SentencePiece BPE; its pieces are in the order of their merges."""
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        if piece not in _SPECIAL
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    tokenizer = BpeTokenizer(BPE(ids, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    steps = [normalizers.Prepend(SPACE)] if spaced else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", int(spaced), 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(i): {"content": token, "special": True, "normalized": False} for i, token in enumerate(_SPECIAL)
        },
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def tiny_hf(
    folder: Path, arch: str, vocab_size: int, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> PreTrainedModel:
    """Write a random model of one of `ARCHITECTURES` into a folder, and return it; `changes` go to its config."""
    torch.manual_seed(seed)
    layers = 6 if arch == "gemma3" else LAYERS
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_SIZE,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "initializer_range": 0.1,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    if arch == "gemma3":
        settings |= {"sliding_window": 64, "query_pre_attn_scalar": HEAD_SIZE}
    if arch == "qwen2":
        del settings["head_dim"]
    model = AutoModelForCausalLM.from_config(_CONFIGS[arch](**(settings | changes)), dtype=dtype)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1:  # norms and biases that are all alike hide what is done to them
                value.add_(torch.randn_like(value) * 0.1)
            assert name
    model.save_pretrained(folder)
    return model.eval()


def tiny_lora(
    folder: Path, model: PreTrainedModel, seed: int = 1, scale: float = 0.3, base: str | None = None, **changes: Any
) -> Path:
    """Write a random LoRA for every linear layer of the blocks; `changes` go to its config.

    The model is adapted in place and left so: load it anew for other use.
    """
    torch.manual_seed(seed)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": targets, "task_type": "CAUSAL_LM"}
    peft = get_peft_model(model, LoraConfig(**(settings | changes)))
    with torch.no_grad():
        for name, value in peft.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name or ("lora_A" in name and "bias" in name):
                value.copy_(torch.randn_like(value) * scale / 2)
    if base is not None:
        peft.peft_config["default"].base_model_name_or_path = base
    peft.save_pretrained(str(folder))
    return folder
