"""Folders as transformers writes them, sound and damaged, and models in memory."""

import json
from collections import Counter
from pathlib import Path

import hf
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from convert.checkpoint import INDEX, Checkpoint, checkpoint_of, open_checkpoint, read_config
from convert.errors import ConversionError, Unsupported

VOCABULARY = 96


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with its weights in one file."""
    folder = tmp_path_factory.mktemp("whole")
    hf.tiny_hf(folder, "llama", VOCABULARY)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in whole.iterdir():
        (folder / path.name).hardlink_to(path)
    return folder


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The same model in several files with an index, as transformers writes large ones."""
    folder = tmp_path / "sharded"
    hf.tiny_hf(tmp_path / "once", "llama", VOCABULARY).save_pretrained(folder, max_shard_size="1MB")
    assert len(shards(folder)) > 2
    return folder


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def replace(path: Path, content: str | bytes) -> None:
    """Write a new file; the old one may have another name elsewhere."""
    path.unlink()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def same(checkpoint: Checkpoint, folder: Path) -> bool:
    """Whether all tensors, values included, are those of a folder with one file."""
    expected = load_file(folder / "model.safetensors")
    found = {tensor.name: tensor.load() for tensor in checkpoint.tensors}
    assert len(found) == len(checkpoint.tensors)
    assert {tensor.name: tensor.shape for tensor in checkpoint.tensors} == {
        name: tuple(value.shape) for name, value in expected.items()
    }
    return all(torch.equal(found[name], value) for name, value in expected.items())


def test_one_file(whole: Path) -> None:
    checkpoint = open_checkpoint(whole)
    assert same(checkpoint, whole)
    assert checkpoint.dtype == torch.float32
    assert checkpoint.config["architectures"] == ["LlamaForCausalLM"]


def test_shards_with_an_index(whole: Path, sharded: Path) -> None:
    assert same(open_checkpoint(sharded), whole)


def test_only_the_files_of_the_index_are_read(whole: Path, sharded: Path) -> None:
    save_file({"other.weight": torch.ones(2, 2)}, sharded / "model-extra.safetensors")
    assert same(open_checkpoint(sharded), whole)


def test_shards_without_an_index(whole: Path, sharded: Path) -> None:
    (sharded / INDEX).unlink()
    assert same(open_checkpoint(sharded), whole)


def test_other_safetensors_beside_the_model_are_left_alone(whole: Path, folder: Path) -> None:
    save_file({"lora": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
    assert same(open_checkpoint(folder), whole)


@pytest.mark.parametrize("indexed", [True, False])
def test_a_missing_shard(sharded: Path, indexed: bool) -> None:
    every = shards(sharded)
    every[1].unlink()
    if indexed:
        expected = f"missing {every[1].name} of {len(every)} files that {INDEX} names: fetch them again"
    else:
        (sharded / INDEX).unlink()
        expected = f"found {len(every) - 1} of {len(every)} shards: fetch the others"
    with pytest.raises(ConversionError) as caught:
        open_checkpoint(sharded)
    assert str(caught.value) == f"{sharded}: {expected}"


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', b"\xff", "null"])
def test_a_damaged_index(sharded: Path, damage: str | bytes) -> None:
    replace(sharded / INDEX, damage)
    with pytest.raises(ConversionError, match=r"index.json: expected a 'weight_map' of tensors to files") as caught:
        open_checkpoint(sharded)
    assert "\n" not in str(caught.value)


def test_a_whole_file_beside_shards_is_what_transformers_reads(sharded: Path) -> None:
    changed = {tensor.name: torch.full(tensor.shape, 0.5) for tensor in open_checkpoint(sharded).tensors}
    save_file(changed, sharded / "model.safetensors", metadata={"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(sharded)
    assert all((value == 0.5).all() for value in model.state_dict().values())
    for indexed in (True, False):
        assert same(open_checkpoint(sharded), sharded), f"indexed: {indexed}"
        (sharded / INDEX).unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": torch.ones(4)}, folder / name)
    with pytest.raises(Unsupported) as caught:
        open_checkpoint(folder)
    assert str(caught.value) == (
        f"{folder}: expected safetensors, found {name}, a pickle, which can run code when it is read: "
        "save the model with save_pretrained(safe_serialization=True)"
    )


def test_pickles_beside_safetensors_are_no_matter(whole: Path, folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"a pickle")
    assert same(open_checkpoint(folder), whole)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConversionError, match=r"expected model.safetensors, found no weights: fetch them"):
        open_checkpoint(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_a_truncated_file(folder: Path, kept: float) -> None:
    """Cut off before its header, inside it, among the tensors, and one byte before the end."""
    data = (folder / "model.safetensors").read_bytes()
    replace(folder / "model.safetensors", data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(ConversionError, match=r"model.safetensors: expected a safetensors file, found one") as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_a_file_that_only_has_the_name(folder: Path) -> None:
    replace(folder / "model.safetensors", "version https://git-lfs.github.com/spec/v1\n" * 9)
    with pytest.raises(ConversionError, match="expected a safetensors file"):
        open_checkpoint(folder)


@pytest.mark.parametrize("damage", [None, "", "{", "[]", "{}", '{"model_type": "nonesuch"}'])
def test_a_bad_configuration(folder: Path, damage: str | None) -> None:
    (folder / "config.json").unlink()
    if damage is not None:
        (folder / "config.json").write_text(damage)
    with pytest.raises(ConversionError, match=r"expected a config.json that transformers can read: ") as caught:
        open_checkpoint(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_with_code_of_its_own_does_not_run(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "it ran"
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "configuration_mine.MineConfig"}}
    replace(folder / "config.json", json.dumps(config))
    (folder / "configuration_mine.py").write_text(f"open({str(trap)!r}, 'w')\n")
    with pytest.raises(ConversionError, match=r"expected a config\.json"):
        open_checkpoint(folder)
    assert not trap.exists()


def test_transformers_defaults_are_filled_in(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["rms_norm_eps"]
    replace(folder / "config.json", json.dumps(config))
    assert read_config(folder)["rms_norm_eps"] == 1e-6


def test_nothing_is_read_before_it_is_asked_for(folder: Path) -> None:
    """What is opened is the header; the tensors come from the file as it is later."""
    checkpoint = open_checkpoint(folder)
    values = load_file(folder / "model.safetensors")
    changed = {name: torch.full_like(value, 7) for name, value in values.items()}
    (folder / "model.safetensors").unlink()
    save_file(changed, folder / "model.safetensors")
    assert all((tensor.load() == 7).all() for tensor in checkpoint.tensors)


def test_a_model_in_memory(whole: Path, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(hf.tiny_hf(tmp_path, "llama", VOCABULARY))
    assert same(checkpoint, whole)
    assert checkpoint.config["architectures"] == ["LlamaForCausalLM"]
    assert checkpoint.config["hidden_size"] == open_checkpoint(whole).config["hidden_size"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_type_is_that_of_the_matrices(tmp_path: Path, dtype: torch.dtype) -> None:
    model = hf.tiny_hf(tmp_path, "llama", VOCABULARY, dtype=dtype, num_hidden_layers=1)
    model.model.norm.float()  # the first tensor by name in some files
    assert checkpoint_of(model).dtype == dtype
    model.save_pretrained(tmp_path)
    assert open_checkpoint(tmp_path).dtype == dtype


def parameters(model: PreTrainedModel) -> int:
    return sum(value.numel() for value in model.parameters())  # torch counts a shared matrix once


@pytest.mark.parametrize("tied", [True, False])
def test_a_shared_matrix_appears_once(tmp_path: Path, tied: bool) -> None:
    model = hf.tiny_hf(tmp_path, "llama", VOCABULARY, num_hidden_layers=1, tie_word_embeddings=tied)
    checkpoint = checkpoint_of(model)
    names = Counter(tensor.name for tensor in checkpoint.tensors)
    assert names["model.embed_tokens.weight"] == 1
    assert names["lm_head.weight"] == (0 if tied else 1)
    assert checkpoint.parameters == open_checkpoint(tmp_path).parameters == parameters(model)


def test_equal_matrices_that_are_not_shared_appear_twice(tmp_path: Path) -> None:
    model = hf.tiny_hf(tmp_path, "llama", VOCABULARY, num_hidden_layers=1)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
    assert "lm_head.weight" in {tensor.name for tensor in checkpoint_of(model).tensors}
