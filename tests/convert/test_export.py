"""The export from end to end, on tiny models: what the runtime loads computes what transformers and PEFT compute.

Refusals are in test_export_refusals.py; what catches a wrong export, and what is told of it, in test_export_proof.py.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import hf
import numpy as np
import pytest
import tiny
import torch
from engines import TOLERANCE, Probe, assert_read_right, begin, logits_after, run, written
from exports import (
    adapted,
    assert_alike,
    card,
    changed,
    difference,
    load,
    metadata,
    prompt_of,
    tensors,
    types,
    workshop,
)
from peft import LoraConfig, PeftModel, get_peft_model

from convert import tokenizer_files, vocabulary
from convert.logits import GgufModel
from sgft_edge.llama.engine import Engine
from sgft_edge.llama.library import fingerprint

LLAMA_CPP = Path(os.environ.get("SGFT_EDGE_TEST_LLAMA_CPP", "/tmp/dev/sdist/llama_cpp_python-0.3.36/vendor/llama.cpp"))

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MARK = [1, 67, 85, 85, 440, 283, 86, 201]
"""`<|im_start|>assistant` and a newline, as `tiny.byte_tokenizer` cuts them."""


@dataclass(frozen=True)
class Trained:
    """An adapter that some steps of training made, how PEFT goes on from a prompt with it, and its export."""

    folder: Path
    out: Path
    base_file: Path
    prompt: list[int]
    tokens: list[int]
    logits: list[np.ndarray]

    def file(self, kind: str) -> Path:
        return self.out / f"trained-{kind}.gguf"

    @property
    def adapter(self) -> Path:
        return self.out / "trained-lora-F32.gguf"


def train(base: Path, folder: Path, steps: int = 8) -> tuple[PeftModel, list[int]]:
    """Train a LoRA on a few texts; returns the model and a prompt that it goes on from in another way than its base."""
    torch.manual_seed(0)
    model = get_peft_model(
        load(base), LoraConfig(r=8, lora_alpha=16, target_modules=LINEAR, task_type="CAUSAL_LM", lora_dropout=0.0)
    )
    tokenizer = tokenizer_files.load_tokenizer(base)
    texts = [tokenizer.encode(line) for line in tiny.CORPUS.splitlines()[:4]]
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=5e-3)
    model.train()
    losses = []
    for _ in range(steps):
        loss = sum(model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss for ids in texts)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(str(folder))
    return model.eval(), texts[0][:16]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with workshop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest.fixture(scope="module")
def trained(shop):
    """Exported in four types and as an adapter."""
    base, folder, out = shop.base(), shop.folder / "trained", shop.folder / "trained-out"
    model, prompt = train(base, folder)
    made = model.generate(
        input_ids=torch.tensor([prompt]),
        max_new_tokens=24,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    options = ("--format", "both", "--quant", "F32,F16,Q8_0,Q4_K_M", "--adapter-type", "F32", "--min-agreement", "0.2")
    assert shop.export(folder, out, *options, "--verify-data", shop.data) == 0
    tokens = made.sequences[0, len(prompt) :].tolist()
    logits = [row[0].float().numpy() for row in made.logits]
    return Trained(folder, out, shop.plain(), prompt, tokens, logits)


def spelt(engine: Engine, tokens: list[int]) -> str:
    """The text of token ids."""
    return b"".join(engine.model.piece(token) for token in tokens).decode(errors="replace")


# ---------------------------------------------------------------- from training to the engine


@pytest.mark.parametrize("kind", ["F32", "F16", "adapter"])
def test_engine_goes_on_as_peft_generates(trained, kind):
    file, adapter = (trained.base_file, trained.adapter) if kind == "adapter" else (trained.file(kind), None)
    read = [(token, adapter) for token in (*trained.prompt, *trained.tokens[:-1])]
    found = logits_after(file, read, len(trained.tokens))
    assert np.abs(np.stack(found) - np.stack(trained.logits)).max() <= TOLERANCE
    engine = Engine(file, slots=1, window=512)
    try:
        loaded = engine.adapter(adapter) if adapter else None
        probe = Probe(engine)
        text = written(engine, trained.prompt, len(trained.tokens), loaded)
        found = probe.logits.pop(0)
        assert text == spelt(engine, [int(row.argmax()) for row in found])
        assert_read_right(file, read[: len(trained.prompt)], found)
        assert adapter is None or written(engine, trained.prompt, len(trained.tokens)) != text
    finally:
        engine.close()


@pytest.mark.parametrize(("kind", "least"), [("F32", 1.0), ("F16", 0.98), ("Q8_0", 0.9), ("Q4_K_M", 0.3)])
def test_quantized_files_mostly_agree_with_peft(trained, kind, least):
    with GgufModel(trained.file(kind)) as model:
        found = model.logits([*trained.prompt, *trained.tokens[:-1]], len(trained.prompt) - 1)
    clear = [i for i, row in enumerate(trained.logits) if np.ptp(np.sort(row)[-2:]) > TOLERANCE]
    assert len(clear) > len(trained.tokens) / 2
    assert np.mean([found[i].argmax() == trained.tokens[i] for i in clear]) >= least


def test_export_holds_every_type_and_nothing_else(trained):
    kinds = {"F32": {"F32"}, "F16": {"F16", "F32"}, "Q8_0": {"Q8_0", "F32"}, "Q4_K_M": {"Q4_K", "Q6_K", "F32"}}
    assert {kind: types(trained.file(kind)) for kind in kinds} == kinds
    names = {trained.file(kind).name for kind in kinds} | {trained.adapter.name}
    assert {path.name for path in trained.out.iterdir()} == names | {
        "card.json",
        "README.md",
        "Modelfile",
        "models.toml",
    }
    sizes = [trained.file(kind).stat().st_size for kind in kinds]
    assert sizes == sorted(sizes, reverse=True)
    by_type = {row["type"]: row for row in card(trained.out)["proof"]["quantized"]}
    assert list(by_type) == ["F16", "Q8_0", "Q4_K_M"]
    assert by_type["F16"]["kld"] < by_type["Q8_0"]["kld"] < by_type["Q4_K_M"]["kld"]
    assert 16 <= by_type["F16"]["bits_per_weight"] < 16.1


# ---------------------------------------------------------------- architectures, and kinds of adapters


@pytest.mark.parametrize("arch", hf.ARCHITECTURES)
def test_every_architecture(shop, tmp_path, arch):
    base, lora = shop.base(arch), shop.lora(f"{arch}-lora", arch)
    plain, out = shop.plain(arch), tmp_path / "out"
    assert shop.export(lora, out, "--format", "both", "--quant", "F32,Q8_0") == 0
    assert_alike(load(base), plain)
    peft = adapted(base, lora)
    assert_alike(peft, out / f"{arch}-lora-F32.gguf")
    assert_alike(peft, plain, out / f"{arch}-lora-lora-F16.gguf")
    assert difference(peft, plain) > 5 * TOLERANCE
    for folder, checks in ((plain.parent, 5), (out, 7)):
        proof = card(folder)["proof"]
        assert [check["passed"] for check in proof["checks"]] == [True] * checks
        assert {check["found"] for check in proof["checks"]} >= {"33 of 33 equal", "4 of 4 equal"}


@pytest.mark.parametrize("arch", hf.ARCHITECTURES)
def test_tokenizer_digest_is_that_of_folder_and_file(shop, arch):
    """Whether an adapter was trained on the folder or on the file, the other one is no other base."""
    config = json.loads((shop.base(arch) / "config.json").read_text())
    folder = vocabulary.digest(vocabulary.from_folder(shop.base(arch), config))
    assert vocabulary.digest(vocabulary.from_gguf(shop.plain(arch))) == folder


def test_tokenizer_json_alone_makes_the_same_model(shop, tmp_path):
    """Fine-tuning tools leave out tokenizer.model."""
    base = shop.base("mistral", "fast-mistral")
    (base / "tokenizer.model").unlink(missing_ok=True)
    assert shop.export(base, tmp_path / "out", "--quant", "F32") == 0
    assert_alike(load(base), tmp_path / "out" / "fast-mistral-F32.gguf")


def test_shards(shop, tmp_path):
    load(shop.base()).save_pretrained(tmp_path / "shards", max_shard_size="2MB")
    hf.bpe_files(tmp_path / "shards", tiny.byte_tokenizer())
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    assert shop.export(tmp_path / "shards", tmp_path / "out", "--quant", "F32") == 0
    assert_alike(load(shop.base()), tmp_path / "out" / "shards-F32.gguf")


SEPARABLE = {
    "rslora": {"use_rslora": True, "r": 16},
    "patterns": {
        "rank_pattern": {"q_proj": 8, r"layers\.1\.mlp\.up_proj": 2},
        "alpha_pattern": {"k_proj": 32, "down_proj": 2},
    },
    "rslora-patterns": {"use_rslora": True, "rank_pattern": {"q_proj": 8}, "alpha_pattern": {"v_proj": 4}},
    "one-layer": {"layers_to_transform": [1]},
    "embeddings": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
}


@pytest.mark.parametrize("kind", SEPARABLE)
def test_adapters_that_can_be_both(shop, tmp_path, kind):
    base, lora = shop.base(), shop.lora(kind, **SEPARABLE[kind])
    assert shop.export(lora, tmp_path / "out", "--format", "both", "--quant", "F32", "--adapter-type", "F32") == 0
    peft = adapted(base, lora)
    assert_alike(peft, tmp_path / "out" / f"{kind}-F32.gguf")
    assert_alike(peft, shop.plain(), tmp_path / "out" / f"{kind}-lora-F32.gguf")
    assert difference(peft, shop.plain()) > 5 * TOLERANCE


MERGED_ONLY = {
    "DoRA": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["lm_head", "norm"]},
    "trained biases": {"bias": "all"},
    "trainable_token_indices": {"trainable_token_indices": list(range(300, 515))},
    "init_lora_weights='olora'": {"init_lora_weights": "olora"},
}


BESIDE = ("lm_head", "norm", ".bias", "trainable_tokens", "magnitude")


@pytest.mark.parametrize("kind", MERGED_ONLY)
def test_adapters_that_must_be_merged(shop, tmp_path, kind):
    """On qwen2, which has biases. What such an adapter has beside its matrices is changed, so that it is missed."""
    base, made = shop.base("qwen2"), shop.lora(f"made {kind}", "qwen2", **MERGED_ONLY[kind])
    parts = ("lora_A",) if "init" in kind else BESIDE
    lora = changed(made, tmp_path / "lora", *parts, change=lambda x: x + 0.2 * torch.randn_like(x))
    assert shop.export(lora, tmp_path / "out", "--quant", "F32") == 0
    assert_alike(adapted(base, lora), tmp_path / "out" / "lora-F32.gguf")
    assert difference(adapted(base, made), tmp_path / "out" / "lora-F32.gguf") > 2 * TOLERANCE
    for form in ("adapter", "both"):
        error = shop.refusal(lora, "--format", form)
        assert kind in error
        assert error.endswith("use --format merged")


@pytest.mark.parametrize(
    "changes", [{}, {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["embed_tokens"]}], ids=str
)
def test_tied_embeddings(shop, tmp_path, changes):
    """An adapter that replaces one of the two matrices unties them, in the merged file as in PEFT."""
    base = shop.base("llama", "tied", tie_word_embeddings=True)
    made = shop.lora(f"tied {changes}", "tied", **changes)
    lora = changed(made, tmp_path / "lora", "lm_head", "embed_tokens", "lora_A", change=lambda x: x * 0.7)
    assert shop.export(base, tmp_path / "base", "--quant", "F32") == 0
    assert_alike(load(base), tmp_path / "base" / "tied-F32.gguf")
    assert "output.weight" not in tensors(tmp_path / "base" / "tied-F32.gguf")
    both = () if changes else ("--format", "both")
    assert shop.export(lora, tmp_path / "out", "--quant", "F32", *both) == 0
    assert_alike(adapted(base, lora), tmp_path / "out" / "lora-F32.gguf")
    assert ("output.weight" in tensors(tmp_path / "out" / "lora-F32.gguf")) == bool(changes)
    if both:
        assert_alike(adapted(base, lora), tmp_path / "base" / "tied-F32.gguf", tmp_path / "out" / "lora-lora-F16.gguf")


def test_activated_lora(shop, tmp_path):
    """The tokens before its invocation are the base's own, here and in PEFT; the engine finds the invocation itself."""
    lora = shop.lora("alora", alora_invocation_tokens=MARK)
    options = ("--format", "adapter", "--adapter-type", "F32", "--verify-data", shop.data)
    assert shop.export(lora, tmp_path / "out", *options) == 0
    file = tmp_path / "out" / "alora-lora-F32.gguf"
    assert metadata(file)["adapter.alora.invocation_tokens"] == MARK
    before, after = prompt_of(515, 12), prompt_of(500, 5)
    tokens = [*before, *MARK, *after]
    engine = Engine(shop.plain(), slots=1, window=512)
    try:
        adapter = engine.adapter(file)
        probe, sequence = Probe(engine), begin(engine, tokens, adapter)
        assert [weights for _, weights in sequence.pending] == [None] * 12 + [adapter] * 13
        run(sequence.complete(8))
        found = probe.logits[sequence.slot]
    finally:
        engine.close()
    read = [*tokens, *(int(row.argmax()) for row in found[:-1])]
    with torch.inference_mode():
        expected = adapted(shop.base(), lora)(input_ids=torch.tensor([read]), use_cache=False).logits[0, -8:].numpy()
    assert np.abs(np.stack(found) - expected).max() <= TOLERANCE


def test_merge_in_bfloat16(shop, tmp_path):
    if "AVX = 1" in fingerprint() and "AVX2 = 1" not in fingerprint():
        pytest.skip("llama.cpp 0.3.36's bfloat16 is not a number on x86-64 without AVX2, and the export refuses it")
    base, lora = shop.base(), shop.lora()
    assert shop.export(lora, tmp_path / "out", "--dtype", "bfloat16", "--quant", "BF16,Q8_0", "--format", "both") == 0
    file = tmp_path / "out" / "lora-BF16.gguf"
    assert types(file) == {"BF16", "F32"}
    assert TOLERANCE / 100 < difference(adapted(base, lora), file) < 20 * TOLERANCE
    assert shop.export(shop.base("llama", "half", dtype=torch.bfloat16), tmp_path / "half", "--quant", "BF16") == 0
    assert_alike(load(shop.folder / "half"), tmp_path / "half" / "half-BF16.gguf")
