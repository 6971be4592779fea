"""What the export cannot take: one line that says why, the right exit status, and nothing left behind."""

import json
import re
import resource
import shutil
from pathlib import Path

import hf
import numpy as np
import pytest
import tiny
import torch
from exports import changed, load, workshop
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config

from convert.export_gguf import main
from convert.imatrix import ImportanceMatrix, write_imatrix


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with workshop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


def copied(folder: Path, target: Path, file: str, **changes: object) -> Path:
    """A copy in which some keys of a JSON file are others."""
    shutil.copytree(folder, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps(content | changes))
    return target


# ---------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--quant", "Q4_K_X"), "--quant: expected a type such as Q4_K_S, Q4_K_M, Q5_K_S, found 'Q4_K_X'"),
        (("--quant", "Q8_0,Q9"), "--quant: expected a type such as Q8_0, Q6_K, Q5_1, found 'Q9'"),
        (("--quant", ","), "--quant: expected "),
        (("--format", "adapter"), "--format adapter: expected an adapter's folder, found a model: "),
        (("--format", "both"), "--format both: expected an adapter's folder, found a model: "),
        (("--base", "llama"), "--base: expected an adapter to go with it, found a model"),
        (("--imatrix", "absent.jsonl"), "--imatrix: expected a file, found none at absent.jsonl"),
        (("--imatrix", "absent.gguf"), "--imatrix: expected a file, found none at absent.gguf"),
        (("--imatrix-rows", "0"), "--imatrix-rows: expected at least 1, found 0"),
        (("--verify-data", "absent.jsonl"), "--verify-data: expected a file, found none at absent.jsonl"),
        (("--verify-rows", "0"), "--verify-rows: expected at least 1, found 0"),
        (("--tensor-type", "attn_v"), "--tensor-type: expected PATTERN=TYPE, such as 'attn_v=Q8_0', found 'attn_v'"),
        (("--tensor-type", "attn_v=Q4_X"), "found 'attn_v=Q4_X'; types near it: IQ4_XS, Q4_K, Q4_1"),
        (("--tensor-type", "(=Q8_0"), "--tensor-type: '(' is no regular expression: missing )"),
        (("--converter", "absent"), "--converter: expected a llama.cpp checkout or its convert_hf_to_gguf.py, found"),
        (("--name", "../elsewhere"), "--name: expected "),
        (("--name", "Ünïcode"), "--name: expected "),
    ],
)
def test_wrong_usage(shop, options, complaint):
    before = sorted(shop.base().parent.rglob("*.gguf"))
    assert complaint in shop.refusal(shop.base(), *options, status=2)
    assert sorted(shop.base().parent.rglob("*.gguf")) == before


def test_quantized_types_of_an_adapter(shop):
    error = shop.refusal(shop.lora(), "--format", "adapter", "--quant", "Q8_0", status=2)
    assert error == "--quant: an adapter has no quantized model; its own type is --adapter-type"


def test_existing_folder(shop, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert shop.export(shop.base(), tmp_path / "out") == 2
    error = f"--out {tmp_path}/out: expected a folder that is not there yet, found one: --force replaces it"
    assert capsys.readouterr().err == f"sgft-edge: error: {error}\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "arguments", [["SOURCE"], ["SOURCE/absent", "--out", "OUT"], ["SOURCE", "--out", "OUT", "--x"]]
)
def test_usage_that_click_refuses(shop, tmp_path, capsys, arguments):
    places = {"SOURCE": str(shop.base()), "SOURCE/absent": str(shop.folder / "absent"), "OUT": str(tmp_path / "out")}
    assert main([places.get(argument, argument) for argument in arguments]) == 2
    assert "sgft-edge: error: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- models


@pytest.fixture(scope="module")
def broken(shop):
    """Folders and files that are no models, by name."""
    base, folder = shop.base(), shop.folder
    changed(base, folder / "nan", "layers.1.mlp.up_proj", change=lambda x: x.index_fill(0, torch.tensor(3), torch.nan))
    changed(base, folder / "large", "lm_head", change=lambda x: x + 1e5)
    half = shutil.copytree(base, folder / "half") / "model.safetensors"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    load(base).save_pretrained(folder / "shards", max_shard_size="2MB")
    hf.bpe_files(folder / "shards", tiny.byte_tokenizer())
    next(folder.glob("shards/model-00002-of-*.safetensors")).unlink()
    shutil.copytree(folder / "shards", folder / "no-index")
    (folder / "no-index" / "model.safetensors.index.json").unlink()
    (shutil.copytree(base, folder / "no-weights") / "model.safetensors").unlink()
    shutil.copytree(folder / "no-weights", folder / "pickle")
    torch.save(load_file(base / "model.safetensors"), folder / "pickle" / "pytorch_model.bin")
    shop.base("llama", "small", vocab_size=500)
    (shutil.copytree(base, folder / "no-tokenizer") / "tokenizer.json").unlink()
    for name, template in (("syntax", "{% for m in messages %}{{ m.role }"), ("raises", "{{ raise_exception('no') }}")):
        copied(base, folder / name, "tokenizer_config.json", chat_template=template)
    hf.bpe_files(folder / "gpt2", tiny.byte_tokenizer())
    config = GPT2Config(vocab_size=515, n_embd=64, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "gpt2")
    copied(
        base, folder / "rope", "config.json", rope_parameters={"rope_type": "dynamic", "factor": 2, "rope_theta": 1e4}
    )
    (folder / "nothing").mkdir()
    tiny.not_gguf(folder / "text.gguf")
    tiny.truncated(shop.plain(), folder / "truncated.gguf")
    tiny.corrupted(shop.plain(), folder / "corrupted.gguf")
    tiny.tiny_model(folder / "mamba.gguf", "mamba")
    return folder


BROKEN = {
    "nan": "the tensor blk.1.ffn_up.weight holds values that are no numbers (NaN or infinity)",
    "half": "/model.safetensors: expected a safetensors file, found one that cannot be read: ",
    "shards": "/shards: missing model-00002-of-0000",
    "no-index": "shards: fetch the others",
    "no-weights": "/no-weights: expected model.safetensors, found no weights",
    "pickle": "/pickle: expected safetensors, found pytorch_model.bin, a pickle, which can run code when it is read",
    "small": "/small: the tokenizer has 515 tokens, the embedding 500 rows: they must belong together",
    "no-tokenizer": "/no-tokenizer: expected tokenizer.json or tokenizer.model, found neither",
    "syntax": "the chat template cannot be rendered (TemplateSyntaxError: ",
    "raises": "the chat template cannot be rendered (TemplateRuntimeError: no)",
    "gpt2": "found GPT2LMHeadModel: --converter PATH runs a llama.cpp checkout's own",
    "rope": "rope_type",
    "nothing": "/nothing: expected a config.json that transformers can read: ",
    "text.gguf": "/text.gguf is not a GGUF file: it starts with b'This', expected b'GGUF'",
    "truncated.gguf": "/truncated.gguf: ",
    "corrupted.gguf": "/corrupted.gguf: ",
    "mamba.gguf": "found MambaForCausalLM",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_models(shop, broken, name):
    """Alone, and as the base of an adapter."""
    assert BROKEN[name] in shop.refusal(broken / name)
    assert BROKEN[name] in shop.refusal(shop.lora(), "--base", broken / name)


def test_values_that_a_type_cannot_hold(shop, broken):
    error = shop.refusal(broken / "large", "--unquantized", "F16")
    assert "the tensor output.weight holds" in error
    assert "BF16 or F32" in error


def test_quantized_model_is_not_quantized_again(shop):
    error = shop.refusal(shop.plain().with_name("llama-Q8_0.gguf"))
    assert "/llama-Q8_0.gguf: it is quantized already (Q8_0): start from the original weights, or " in error
    assert error.endswith("--allow-requantize")


def test_adapter_file_is_no_model(shop, tmp_path, monkeypatch):
    """transformers would make a model of seven billion random weights of it."""
    assert shop.export(shop.lora(), tmp_path / "out", "--format", "adapter") == 0
    file = tmp_path / "out" / "lora-lora-F16.gguf"

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked to load an adapter as a model")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    for error in (shop.refusal(file), shop.refusal(shop.lora(), "--base", file)):
        assert "lora-lora-F16.gguf" in error
        assert "asked to load" not in error


# ---------------------------------------------------------------- adapters


def test_adapter_for_another_base(shop):
    """By shapes, by layers, by tokens; and by architecture where all these are the same."""
    lora = shop.lora()
    named = f": it was trained on {shop.base()}; name the right base with --base"
    error = shop.refusal(lora, "--base", shop.base("llama", "wide", intermediate_size=768))
    assert error == f"{lora}: expected 768 inputs of model.layers.0.mlp.down_proj as in the base, found 512{named}"
    error = shop.refusal(lora, "--base", shop.base("llama", "shallow", num_hidden_layers=1))
    assert f"{lora}: made for a base with model.layers.1." in error
    assert error.endswith(f", which LlamaForCausalLM has not{named}")


def test_adapter_for_a_base_with_more_layers(shop):
    """PEFT would fill the layers that the adapter has nothing for with matrices of its own."""
    error = shop.refusal(shop.lora(), "--base", shop.base("llama", "deep", num_hidden_layers=3))
    assert "layers.2" in error


def test_adapter_for_another_architecture(shop):
    """Of the same shapes, and with the same tokens."""
    assert "Qwen3ForCausalLM" in shop.refusal(shop.lora(), "--base", shop.base("qwen3"))


def test_adapter_for_other_tokens(shop, tmp_path):
    """By the digest in the training's record, or by the tokenizer that was saved with the adapter."""
    lora = shutil.copytree(shop.lora(), tmp_path / "digest")
    (lora / "training.json").write_text(json.dumps(hf.training_record(tokenizer_digest="d" * 64)))
    complaint = ": trained with another tokenizer (dddddddddddd) than that of "
    assert complaint in shop.refusal(lora)
    assert complaint in shop.refusal(lora, "--base", shop.plain())
    lora = shutil.copytree(shop.lora(), tmp_path / "saved")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shop.base() / name, lora)
    assert shop.export(lora, tmp_path / "out", "--no-verify") == 0
    hf.bpe_files(lora, tiny.byte_tokenizer(merges=255))
    assert ": trained with another tokenizer (" in shop.refusal(lora)


def test_base_that_cannot_be_found(shop, tmp_path):
    lora = shop.lora()
    for name in ("nonesuch", "./absent", str(tmp_path / "absent")):
        error = shop.refusal(lora, "--base", name)
        assert error.startswith(
            f"base {name!r}: expected a folder, a GGUF file, a name from `sgft-edge models list`, or"
        )
    assert "absent.gguf: No such file" in shop.refusal(lora, "--base", tmp_path / "absent.gguf")
    assert shop.refusal(lora, "--base", "smollm2") == (
        "smollm2 is not on this machine: run `sgft-edge models pull smollm2`"
    )
    nameless = copied(lora, tmp_path / "nameless", "adapter_config.json", base_model_name_or_path=None)
    error = shop.refusal(nameless, status=2)
    assert error == f"{nameless}: it does not say what it was trained on: name the base with --base"


@pytest.mark.parametrize("form", ["merged", "adapter", "both"])
def test_adapter_that_was_never_trained(shop, tmp_path, form):
    empty = changed(shop.lora(), tmp_path / "empty", "lora_B", change=torch.zeros_like)
    error = shop.refusal(empty, "--format", form)
    assert ("changes no weight of the base" if form == "merged" else "the adapter changes nothing") in error


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_adapter_with_damaged_values(shop, tmp_path, form):
    damaged = changed(shop.lora(), tmp_path / "nan", "layers.1.mlp.up_proj.lora_A", change=lambda x: x * torch.nan)
    assert "NaN" in shop.refusal(damaged, "--format", form)


def test_adapter_without_some_of_its_tensors(shop, tmp_path):
    """PEFT would put random ones in their place."""
    part = shutil.copytree(shop.lora(), tmp_path / "part")
    weights = load_file(part / "adapter_model.safetensors")
    lost = next(name for name in weights if "layers.1.mlp.up_proj.lora_A" in name)
    del weights[lost]
    save_file(weights, part / "adapter_model.safetensors", {"format": "pt"})
    for form in ("merged", "adapter"):
        assert "layers.1.mlp.up_proj" in shop.refusal(part, "--format", form)


def test_adapter_files_that_cannot_be_read(shop, tmp_path):
    pickled = shutil.copytree(shop.lora(), tmp_path / "pickled")
    torch.save(load_file(pickled / "adapter_model.safetensors"), pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    error = shop.refusal(pickled)
    assert error.startswith(f"{pickled}: expected adapter_model.safetensors, found adapter_model.bin, a pickle, which")
    (pickled / "adapter_model.bin").unlink()
    assert shop.refusal(pickled) == f"{pickled}: expected adapter_model.safetensors, found no weights"
    (pickled / "adapter_model.safetensors").write_bytes(b"no tensors")
    assert "/adapter_model.safetensors: expected a safetensors file: " in shop.refusal(pickled)


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("adapter_config.json", "{", "/adapter_config.json: expected PEFT's configuration: "),
        ("adapter_config.json", "[]", "/adapter_config.json: expected "),
        ("adapter_config.json", '{"peft_type": "IA3"}', ": expected peft_type LORA, found 'IA3'"),
        ("training.json", "{", "/training.json: expected the record of a training as JSON: "),
        ("training.json", "[]", "/training.json: expected a JSON object, found list"),
    ],
)
def test_adapter_settings_that_cannot_be_read(shop, tmp_path, file, content, complaint):
    lora = shutil.copytree(shop.lora(), tmp_path / "lora")
    (lora / file).write_text(content)
    assert complaint in shop.refusal(lora)


@pytest.mark.parametrize("form", ["merged", "both"])
def test_activated_lora_is_not_merged(shop, form):
    lora = shop.lora("alora", alora_invocation_tokens=[1, 67, 85])
    error = shop.refusal(lora, "--format", form)
    assert error.startswith(f"{lora}: an activated LoRA leaves the tokens before its invocation to the base, so it ")
    assert error.endswith("cannot be merged: use --format adapter")


def test_adapter_of_tied_embeddings(shop):
    shop.base("llama", "tied", tie_word_embeddings=True)
    lora = shop.lora("tied-lora", "tied", target_modules=["embed_tokens", "q_proj"])
    for form in ("merged", "adapter"):
        assert "it adapts embed_tokens, which shares its matrix with another" in shop.refusal(lora, "--format", form)


# ---------------------------------------------------------------- texts and matrices


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", '{"question": "2 + 2?"}', "a.jsonl: line 1: expected a guidance, found none"),
        ("a.jsonl", '{"question": "2 + 2?", "guidance": ""}', "a.jsonl: line 1: "),
        ("a.jsonl", "no JSON", "expected a JSON object on one line"),
        ("a.jsonl", "", "a.jsonl: expected problems with a guidance, or a text, found nothing"),
        ("a.txt", "", "a.txt: expected problems with a guidance, or a text, found nothing"),
        ("a.txt", "\udcff", "a.txt: expected a text in UTF-8"),
    ],
)
@pytest.mark.parametrize("option", ["--verify-data", "--imatrix"])
def test_data_that_cannot_be_read(shop, tmp_path, option, name, content, complaint):
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    assert complaint in shop.refusal(shop.base(), "--quant", "Q4_0", option, tmp_path / name, status=2)


def test_problem_that_is_too_long(shop, tmp_path):
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"question": "2 + 2?", "guidance": "1. Find the sum of many words.\n" * 400}))
    assert "long.jsonl: line 1: " in shop.refusal(shop.base(), "--verify-data", long, status=2)


def test_types_that_need_an_importance_matrix(shop):
    assert "requires an imatrix" in shop.refusal(shop.base(), "--quant", "IQ1_S")


def test_importance_matrix_of_another_model(shop, tmp_path):
    """By its width, and by its names."""
    wide = shop.base("llama", "wide-imatrix", intermediate_size=768)
    options = ("--quant", "Q4_0", "--min-agreement", 0, "--imatrix")
    assert shop.export(wide, tmp_path / "out", *options, shop.data, "--imatrix-rows", 1) == 0
    matrix = tmp_path / "out" / "wide-imatrix-imatrix.gguf"
    assert "imatrix" in shop.refusal(shop.base(), *options, matrix)
    assert "expected a GGUF file of type 'imatrix', found 'model'" in shop.refusal(shop.base(), *options, shop.plain())
    strange = ImportanceMatrix({"strange.weight": np.ones(256, np.float32)}, {"strange.weight": 1}, ("a text",), 1, 1)
    write_imatrix(tmp_path / "strange.gguf", strange)
    assert "strange.gguf" in shop.refusal(shop.base(), *options, tmp_path / "strange.gguf")


# ---------------------------------------------------------------- disks


def test_too_little_space_is_seen_at_the_start(shop, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    error = shop.refusal(shop.base(), "--quant", "F16,Q8_0")
    assert error.startswith("needs about ")
    assert "MB of free space in " in error
    assert "found 1 MB: free some, or choose another --out" in error
    needed = int(error.split()[2])
    assert 5.8 + 2.9 + 1.6 < needed < 3 * (5.8 + 2.9 + 1.6)


@pytest.mark.parametrize("limit", [1_000_000, 4_000_000], ids=["our own writer", "llama.cpp's"])
def test_full_disk(shop, limit):
    """As far as a limit on the size of files is one; F16 fits into the second, F32 does not."""
    base, (soft, hard) = shop.base(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # Python ignores the signal: writing fails
    try:
        error = shop.refusal(base, "--unquantized", "F16", "--quant", "F32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert re.search("disk|space|too large", error.replace(str(shop.folder), ""))
