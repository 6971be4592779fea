"""Losses and gradients of a batch, with what rows share computed once, are those of each row alone through PEFT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import hf
import pytest
import torch
from exports import load
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy

from sgft_edge.llama.model import Model
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.question import Question
from train.check_sg import read_sg
from train.forward import split_at
from train.loop import Trainer
from train.model import TARGETS, adapted, invocation_of
from train.processes import Processes
from train.rows import ROLES, Example, Writer
from train.settings import TrainSettings

DEV = Path(__file__).parents[2] / "train" / "data" / "solution_guidance.dev.jsonl"
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
MARK = [1, 7]
"""An invocation in the rows of `lengths`."""


@pytest.fixture(scope="module")
def vocabulary(llama: Path) -> Iterator[Model]:
    model = Model(llama, vocab_only=True)
    yield model
    model.close()


@pytest.fixture(scope="module")
def examples(vocabulary: Model) -> dict[str, list[Example]]:
    """Three rows of unlike length for each role."""
    rows = sorted(read_sg(DEV)[:20], key=lambda row: len(row.question.text))
    writer = Writer(vocabulary)
    return {role: writer.examples([rows[4], rows[0], rows[9]], role) for role in ROLES}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, vocabulary: Model) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    for arch in ARCHITECTURES:
        hf.tiny_hf(folder / arch, arch, vocabulary.n_vocab)
    return {arch: folder / arch for arch in ARCHITECTURES}


def settings_for(method: str = "lora", **changes: object) -> TrainSettings:
    return TrainSettings(base="", out="", method=method, rank=4, alpha=8.0, **changes)  # type: ignore[arg-type]


def trainer_for(base: Path, rows: Sequence[Example], mark: Sequence[int], settings: TrainSettings) -> Trainer:
    model = adapted(load(base), settings)
    disturb(model)
    return Trainer(model, settings, rows, mark, Processes(), None)


def disturb(model: PeftModel) -> None:
    """A LoRA begins as one that changes nothing; make it one that changes much."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.copy_(torch.randn(value.shape, generator=draw) * 0.15)


def plain_loss(model: PeftModel, rows: Sequence[Example]) -> torch.Tensor:
    """The sum over learned tokens, each row alone, from all logits."""
    total = torch.zeros(())
    for row in rows:
        tokens = torch.tensor([[*row.prompt, *row.completion]])
        logits = model(input_ids=tokens, use_cache=False).logits[0, len(row.prompt) - 1 : -1].float()
        learned = torch.tensor(row.learned)
        total = total + cross_entropy(logits[learned], torch.tensor(row.completion)[learned], reduction="sum")
    return total


def gradients(model: PeftModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def peft_alora(base: Path, mark: Sequence[int]) -> PeftModel:
    """PEFT's own activated LoRA with the weights of `trainer_for`."""
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, lora_alpha=8.0, target_modules=TARGETS, task_type="CAUSAL_LM", alora_invocation_tokens=list(mark)
    )
    model = get_peft_model(load(base), config)
    disturb(model)
    return model


def assert_same(
    found: tuple[torch.Tensor, dict[str, torch.Tensor]], expected: tuple[torch.Tensor, dict[str, torch.Tensor]]
) -> None:
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
    assert found[1].keys() == expected[1].keys() != set()
    scale = max(float(value.abs().max()) for value in expected[1].values())
    for name, value in expected[1].items():
        difference = float((found[1][name] - value).abs().max())
        assert difference < 1e-4 * max(float(value.abs().max()), 1e-2 * scale), name


def losses(trainer: Trainer) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients of all rows of a trainer as one batch."""
    loss = trainer._loss(trainer.examples, trainer._starts)
    return loss.detach(), gradients(trainer.model, loss)


def reference(model: PeftModel, rows: Sequence[Example]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = plain_loss(model, rows)
    return loss.detach(), gradients(model, loss)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_lora(bases: dict[str, Path], examples: dict[str, list[Example]], arch: str, role: str) -> None:
    """Gemma's tiny sliding window of 64 tokens ends far behind the beginning of each row."""
    rows = examples[role]
    assert len({len(row) for row in rows}) == 3
    trainer = trainer_for(bases[arch], rows, [], settings_for())
    assert_same(losses(trainer), reference(trainer.model, rows))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_activated_lora(
    bases: dict[str, Path], examples: dict[str, list[Example]], vocabulary: Model, arch: str, role: str
) -> None:
    rows = examples[role]
    mark = invocation_of(vocabulary, rows)
    trainer = trainer_for(bases[arch], rows, mark, settings_for("alora"))
    assert len(set(trainer._starts)) == 3
    expected = reference(peft_alora(bases[arch], mark), rows)
    assert_same(losses(trainer), expected)
    assert_same(losses(trainer), expected)  # from the prompts that it keeps
    lora = plain_loss(trainer.model, rows)
    assert lora.item() != pytest.approx(expected[0].item(), rel=1e-4)


@pytest.mark.parametrize("method", ["lora", "alora"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_blocks_computed_again(
    bases: dict[str, Path], examples: dict[str, list[Example]], vocabulary: Model, arch: str, method: str
) -> None:
    rows = examples["solver"]
    mark = invocation_of(vocabulary, rows)
    passes = {}
    expected = losses(trainer_for(bases[arch], rows, mark, settings_for(method)))
    for checkpointing in (False, True):
        trainer = trainer_for(bases[arch], rows, mark, settings_for(method, checkpointing=checkpointing))
        trainer.model.train()
        seen: list[int] = []
        mlp = trainer.model.get_base_model().get_decoder().layers[0].mlp
        mlp.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        assert_same(losses(trainer), expected)
        passes[checkpointing] = len(seen)
    forwards, again = passes[False], 2 if method == "lora" else 1
    assert passes[True] == forwards + again


@pytest.mark.parametrize("change", [{"rslora": True}, {"dora": True}, {"layers": 1}], ids=str)
def test_other_kinds_of_lora(
    bases: dict[str, Path], examples: dict[str, list[Example]], change: dict[str, object]
) -> None:
    rows = examples["guide"]
    trainer = trainer_for(bases["llama"], rows, [], settings_for(**change))
    found = losses(trainer)
    assert_same(found, reference(trainer.model, rows))
    if "layers" in change:
        assert {name.split(".layers.")[1][0] for name in found[1]} == {"1"}


def test_rows_that_share_an_id_share_nothing_else(bases: dict[str, Path], vocabulary: Model) -> None:
    """A row without an id is called by its line, as one of the dev file is."""
    rows = Writer(vocabulary).examples(read_sg(DEV)[:2], "guide")
    mark = invocation_of(vocabulary, rows)
    apart = trainer_for(bases["llama"], rows, mark, settings_for("alora"))
    alike = trainer_for(bases["llama"], [replace(row, id="1") for row in rows], mark, settings_for("alora"))
    assert losses(alike)[0].item() == pytest.approx(losses(apart)[0].item(), rel=1e-6)
    other = trainer_for(bases["llama"], [replace(rows[0], id="1")], mark, settings_for("alora"))
    losses(other)
    dev = replace(rows[1], id="1")
    assert other.dev_loss([dev]) == pytest.approx(apart.dev_loss([rows[1]]), rel=1e-6)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("method", ["lora", "alora"])
def test_logits_only_where_something_is_learned(
    bases: dict[str, Path], examples: dict[str, list[Example]], vocabulary: Model, method: str, role: str
) -> None:
    rows = examples[role]
    trainer = trainer_for(bases["llama"], rows, invocation_of(vocabulary, rows), settings_for(method))
    seen: list[int] = []
    output = trainer.model.get_base_model().get_output_embeddings()
    output.register_forward_hook(lambda module, args, out: seen.append(args[0].numel() // args[0].shape[-1]))
    trainer._loss(rows, trainer._starts)
    assert sum(seen) == sum(sum(row.learned) for row in rows)


def test_what_is_shared_is_read_once(bases: dict[str, Path], examples: dict[str, list[Example]]) -> None:
    rows = examples["guide"]
    trainer = trainer_for(bases["llama"], rows, [], settings_for())
    seen: list[int] = []
    first = trainer.model.get_base_model().get_decoder().layers[0]
    first.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[0] * args[0].shape[1]))
    trainer._loss(rows, trainer._starts)
    longest = max(len(row) for row in rows) - rows[0].fixed
    assert sorted(seen) == sorted([rows[0].fixed, 3 * longest])


def test_the_prompt_of_an_activated_lora_needs_no_gradient_and_is_read_once(
    bases: dict[str, Path], examples: dict[str, list[Example]], vocabulary: Model
) -> None:
    rows = examples["guide"]
    trainer = trainer_for(bases["llama"], rows, invocation_of(vocabulary, rows), settings_for("alora"))
    seen: list[tuple[int, bool]] = []
    first = trainer.model.get_base_model().get_decoder().layers[0]
    first.register_forward_hook(
        lambda module, args, out: seen.append(
            (args[0].shape[1], (out[0] if isinstance(out, tuple) else out).requires_grad)
        )
    )
    trainer._loss(rows, trainer._starts)
    own = max(len(row) - start for row, start in zip(rows, trainer._starts, strict=True))
    assert seen == [*((start, False) for start in trainer._starts), (own, True)]
    seen.clear()
    trainer._loss(rows, trainer._starts)
    assert seen == [(own, True)]


def test_the_last_invocation_of_a_prompt_counts() -> None:
    row = Example("1", (5, *MARK, 6, *MARK, 9), 1, (*MARK, 4), (True,) * 3)
    assert split_at(row, "alora", MARK) == 4
    assert split_at(row, "lora", MARK) == 1
    with pytest.raises(ValueError, match="invocation"):
        split_at(row, "alora", [8])


def test_an_invocation_is_the_end_of_the_prompt_from_its_last_control_token(
    examples: dict[str, list[Example]], vocabulary: Model
) -> None:
    start = vocabulary.tokenize("<|im_start|>assistant\n", special=True)
    for role in ROLES:
        prefix = prompts.program(Question("x")).answer_prefix if role == "program" else ""
        assert invocation_of(vocabulary, examples[role]) == start + vocabulary.tokenize(prefix)


def test_dev_loss_is_the_mean_over_learned_tokens(bases: dict[str, Path], examples: dict[str, list[Example]]) -> None:
    """Whatever the batches are; nothing is kept for a gradient, and no dropout acts."""
    rows = examples["solver"]
    trainer = trainer_for(bases["llama"], rows, [], settings_for(batch=2, dropout=0.5))
    found = trainer.dev_loss(rows)
    trainer.model.eval()
    with torch.no_grad():
        expected = plain_loss(trainer.model, rows).item() / sum(sum(row.learned) for row in rows)
    assert found == pytest.approx(expected, rel=1e-5)
    assert all(value.grad is None for value in trainer.parameters.values())


def test_an_epoch_has_each_row_once_and_the_seed_and_the_epoch_decide_when(
    bases: dict[str, Path], examples: dict[str, list[Example]]
) -> None:
    rows = [row for _ in range(13) for row in examples["guide"]]
    trainer = trainer_for(bases["llama"], rows, [], settings_for(batch=2))
    orders = [trainer.order(0), trainer.order(1)]
    orders.append(trainer_for(bases["llama"], rows, [], settings_for(batch=2, seed=1)).order(0))
    for batches in orders:
        assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
        assert sorted(map(len, batches)) == [1, *[2] * 19]
    assert orders[0] == trainer.order(0)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    mixed = sum(len({len(rows[row]) for row in batch}) > 1 for batch in orders[0])
    assert mixed <= 6  # of rows of three lengths, in two buckets
