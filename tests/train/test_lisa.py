"""LISA: which blocks change, what the optimizer keeps, and that the trained model can be exported and solved with."""

from __future__ import annotations

import json
from pathlib import Path

import hf
import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from convert import export_gguf
from sgft_edge.errors import InputError
from sgft_edge.reasoning.settings import Settings
from sgft_edge.solver import Solver
from train import sgft
from train.lisa import Blocks
from train.loop import Trainer
from train.settings import TrainSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    vocab = tiny.byte_tokenizer()
    hf.bpe_files(folder, vocab)
    hf.tiny_hf(folder, "llama", len(vocab["tokenizer.ggml.tokens"].value))
    return folder


def options(base: Path, out: Path, *more: str) -> list[str]:
    given = ["--base", str(base), "--out", str(out), "--method", "lisa", "--rows", "8", "--batch", "2"]
    return [*given, "--rate", "0.01", "--validity", "0", *more]


def test_only_the_drawn_blocks_are_free_and_known_to_the_optimizer(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    settings = TrainSettings(base="", out="", method="lisa", lisa_blocks=1, lisa_every=3)
    blocks = Blocks(model, settings)
    drawn = [blocks.drawn(step) for step in range(60)]
    assert all(drawn[i] == drawn[i - i % 3] for i in range(60))
    assert {tuple(part) for part in drawn} == {(0,), (1,)}
    for step in (0, drawn.index([0]), drawn.index([1])):
        blocks.choose(step, optimizer)
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        model(input_ids=torch.arange(8)[None]).logits.sum().backward()
        optimizer.step()
        changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        (block,) = blocks.drawn(step)
        assert any(name.startswith(f"model.layers.{block}.") for name in changed)
        assert not any(name.startswith(f"model.layers.{1 - block}.") for name in changed)
        assert {"model.embed_tokens.weight", "model.norm.weight"} <= changed
        known = {name for name, value in model.named_parameters() if value in optimizer.state}
        assert not any(name.startswith(f"model.layers.{1 - block}.") for name in known)
        optimizer.zero_grad()
    with pytest.raises(InputError, match="lisa_blocks: the base has 2, found 3"):
        Blocks(model, TrainSettings(base="", out="", method="lisa", lisa_blocks=3))


def test_a_trained_model_is_exported_and_solves(base: Path, tmp_path: Path) -> None:
    out, export = tmp_path / "model", tmp_path / "export"
    assert sgft.main(options(base, out, "--epochs", "6", "--lisa-blocks", "1", "--lisa-every", "3")) == 0
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["dev_loss"] < metrics[3]["dev_loss"]
    assert json.loads((out / "training.json").read_text())["settings"]["method"] == "lisa"
    assert export_gguf.main([str(out), "--out", str(export), "--quant", "F32", "--verify-rows", "2"]) == 0
    (file,) = export.glob("*.gguf")
    with Solver.open(file, threads=1) as solver:
        assert solver.solve("What is 3 + 4?", Settings("direct", max_tokens=4)).text


def test_a_run_goes_on_as_if_nothing_had_happened(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while other blocks are trained than at first, with what the optimizer knows of them."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    more = ("--epochs", "2", "--lisa-blocks", "1", "--lisa-every", "3", "--save-minutes", "0.0000001")
    assert sgft.main(options(base, whole, *more)) == 0
    step = Trainer.train_step

    def interrupted(self: Trainer) -> float:
        if self.progress.step == 5:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        assert sgft.main(options(base, stopped, *more)) == 130
    assert (stopped / "state" / "state.safetensors").is_file()
    assert sgft.main(options(base, stopped, *more)) == 0
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (stopped, whole))
    assert all((ours[name] - theirs[name]).norm() <= 1e-3 * theirs[name].norm() for name in ours)
    steps = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (stopped, whole)]
    assert [row["loss"] for row in steps[0]] == pytest.approx([row["loss"] for row in steps[1]], rel=1e-3)
