"""Training on tiny models: what is learned, that sharing changes nothing, and that a killed run goes on."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hf
import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from convert import export_gguf
from sgft_edge.llama.model import Model
from sgft_edge.llama.tokens import prompt_tokens, template_of
from sgft_edge.reasoning import prompts
from train import sgft
from train.check_sg import Row, read_sg
from train.forward import collate, loss_of, read_shared, split_at, stack
from train.loop import Trainer
from train.model import TARGETS, invocation_of
from train.rows import ROLES, Example, Writer

DATA = Path(__file__).parents[2] / "train" / "data" / "solution_guidance.dev.jsonl"
TRAIN = DATA.with_name("solution_guidance.train.jsonl")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return read_sg(DATA)[:6]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "tiny"
    vocab = tiny.byte_tokenizer()
    hf.bpe_files(folder, vocab)
    hf.tiny_hf(folder, "llama", len(vocab["tokenizer.ggml.tokens"].value))
    return folder


@pytest.fixture(scope="module")
def vocabulary(llama: Path) -> Model:
    return Model(llama, vocab_only=True)


def text(model: Model, example: Example, learned: bool | None = None) -> str:
    """The completion, or the part of it that is learned or not."""
    kept = [t for t, part in zip(example.completion, example.learned, strict=True) if learned in (None, part)]
    return b"".join(model.piece(token) for token in kept).decode()


def test_a_guide_learns_the_guidance_and_to_stop(vocabulary: Model, rows: list[Row]) -> None:
    for row, example in zip(rows, Writer(vocabulary).examples(rows, "guide"), strict=True):
        prompt, fixed = prompt_tokens(vocabulary, template_of(vocabulary), prompts.guide(row.question))
        assert (list(example.prompt), example.fixed) == (prompt, fixed)
        assert all(example.learned)
        assert text(vocabulary, example) == row.guidance
        assert vocabulary.token_text(example.completion[-1]) == "<|im_end|>"


def test_what_the_runtime_writes_is_not_learned(vocabulary: Model, rows: list[Row]) -> None:
    row = rows[0]
    (answerer,), (solver,) = (Writer(vocabulary).examples([row], role) for role in ("answerer", "solver"))
    assert text(vocabulary, answerer) == text(vocabulary, solver)
    assert text(vocabulary, answerer, learned=True) == "".join(f"{part} =" for part in row.expressions or () if part)
    written = text(vocabulary, solver, learned=False)
    assert written.startswith("1. Expression: ")
    assert all(step[3:] not in written for step in row.guidance.splitlines())


def test_pieces_are_tokenized_as_the_runtime_does(smollm2: Path, rows: list[Row]) -> None:
    """`exact` forces "\\n2. words" and "\\n Expression: " and " = value", each as one text."""
    model = Model(smollm2, vocab_only=True)
    whole = [row for row in rows if None not in (row.expressions or ())]
    assert len(whole) > 2
    for row, example in zip(whole, Writer(model).examples(whole, "answerer"), strict=True):
        expected: list[int] = []
        values = text(model, example).split(" = ")[1:]
        for i, step in enumerate(row.guidance.splitlines()):
            expected += model.tokenize(step if i == 0 else f"\n{step}") + model.tokenize(prompts.EXPRESSION)
            expected += model.tokenize((row.expressions or ())[i] or "")
            expected += model.tokenize(f"{prompts.EQUALS} {values[i].splitlines()[0]}")
        assert list(example.completion)[: len(expected)] == expected


def adapted(arch: str, size: int, folder: Path, **changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    model = hf.tiny_hf(folder, arch, size)
    peft = get_peft_model(model, LoraConfig(r=4, target_modules=TARGETS, task_type="CAUSAL_LM", **changes))
    for name, value in peft.named_parameters():
        if "lora_B" in name:
            value.data.normal_(0, 0.1)
    return peft.eval()


def plainly(model: torch.nn.Module, examples: list[Example]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients by PEFT's own forward, row by row."""
    total = 0.0
    for example in examples:
        ids = [*example.prompt, *example.completion]
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        labels = [-100] * len(example.prompt)
        labels += [t if part else -100 for t, part in zip(example.completion, example.learned, strict=True)]
        loss = cross_entropy(logits, torch.tensor(labels[1:]), reduction="sum", ignore_index=-100)
        loss.backward()
        total += loss.item()
    found = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return total, found


def assert_equal(model: torch.nn.Module, loss: torch.Tensor, expected: tuple[float, dict[str, torch.Tensor]]) -> None:
    loss.backward()
    assert loss.item() == pytest.approx(expected[0], rel=1e-4)
    for name, value in model.named_parameters():
        if value.grad is not None:
            assert (value.grad - expected[1][name]).norm() <= 1e-3 * expected[1][name].norm() + 1e-6, name


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma3"])
def test_sharing_changes_neither_loss_nor_gradients(
    arch: str, role: str, vocabulary: Model, rows: list[Row], tmp_path: Path
) -> None:
    """A prompt's fixed part read once for the batch, rows of unequal length, logits only where something is learned."""
    examples = Writer(vocabulary).examples(rows[:3], role)
    model = adapted(arch, vocabulary.n_vocab, tmp_path)
    expected = plainly(model, examples)
    seen: list[int] = []
    model.get_base_model().lm_head.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    starts = [split_at(example, "lora", ()) for example in examples]
    past = read_shared(model, examples[0].prompt[: starts[0]])
    assert_equal(model, loss_of(model, collate(examples, starts), past), expected)
    assert seen == [sum(sum(example.learned) for example in examples)]


def test_an_activated_lora_is_pefts(vocabulary: Model, rows: list[Row], tmp_path: Path) -> None:
    """What precedes the invocation is read by the base alone, without gradients, each row's by itself."""
    examples = Writer(vocabulary).examples(rows[:3], "guide")
    mark = invocation_of(vocabulary, examples)
    assert vocabulary.token_text(mark[0]) == "<|im_start|>"
    theirs = adapted("llama", vocabulary.n_vocab, tmp_path / "a", alora_invocation_tokens=mark)
    expected = plainly(theirs, examples)
    ours = adapted("llama", vocabulary.n_vocab, tmp_path / "b")
    starts = [split_at(example, "alora", mark) for example in examples]
    with torch.no_grad(), ours.disable_adapter():
        past = stack([read_shared(ours, e.prompt[:start]) for e, start in zip(examples, starts, strict=True)])
    assert_equal(ours, loss_of(ours, collate(examples, starts), past), expected)


def options(base: Path, out: Path, *more: str) -> list[str]:
    return ["--base", str(base), "--out", str(out), "--rows", "24", "--batch", "4", "--rate", "0.003", *more]


@pytest.mark.parametrize("method", ["lora", "alora"])
def test_train_and_export(base: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "guide"
    assert sgft.main(options(base, out, "--method", method, "--epochs", "3")) == 0
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["dev_loss"] < metrics[5]["dev_loss"]
    record = json.loads((out / "training.json").read_text())
    assert record["prompts_digest"] == prompts.guide_digest()
    assert record["data"]["examples"] == 24
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    exported = ["--format", "adapter", "--verify-rows", "2"]
    assert export_gguf.main([str(out), "--out", str(tmp_path / "export"), *exported]) == 0


def test_a_training_goes_on_from_an_adapter(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert sgft.main(options(base, first, "--epochs", "3")) == 0
    assert sgft.main(options(base, second, "--epochs", "0.2", "--adapter", str(first), "--seed", "1")) == 0
    begun, ended = (
        json.loads((out / "metrics.jsonl").read_text().splitlines()[n]) for out, n in ((first, 0), (second, 0))
    )
    assert ended["loss"] < begun["loss"]
    digest = hashlib.sha256((first / "adapter_model.safetensors").read_bytes()).hexdigest()
    record = json.loads((second / "training.json").read_text())
    assert record["data"]["adapter_sha256"] == digest
    assert str(first) not in json.dumps(record)
    for more, complaint in (
        (("--adapter", str(first), "--rank", "2"), "expected r 2, found 16"),
        (("--adapter", str(tmp_path)), "adapter: cannot read"),
    ):
        capsys.readouterr()
        assert sgft.main(options(base, tmp_path / "no", *more)) == 2
        assert complaint in capsys.readouterr().err
        shutil.rmtree(tmp_path / "no")
    record = json.loads((first / "training.json").read_text())
    record["base"]["digest"] = "0123"
    (first / "training.json").write_text(json.dumps(record))
    assert sgft.main(options(base, tmp_path / "no", "--adapter", str(first))) == 2
    assert "was trained on another base" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "no")
    (first / "training.json").unlink()
    (first / "adapter_model.safetensors").write_bytes(b"x")
    assert sgft.main(options(base, tmp_path / "no", "--adapter", str(first))) == 2
    assert "cannot be loaded" in capsys.readouterr().err


def test_a_killed_run_goes_on_to_the_same_result(base: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def started(out: Path) -> subprocess.Popen[bytes]:
        more = ("--epochs", "2", "--save-minutes", "0.0000001", "--dropout", "0.1")
        command = [sys.executable, "-m", "train.sgft", *options(base, out, *more)]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # sums in one order, whatever the machine
        return subprocess.Popen(command, env=one_thread, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert started(whole).wait() == 0
    process = started(killed)
    while process.poll() is None:
        if (killed / "metrics.jsonl").is_file() and len((killed / "metrics.jsonl").read_text().splitlines()) >= 3:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait()
    assert not (killed / "adapter_model.safetensors").exists(), "it was done before it could be killed"
    assert started(killed).wait() == 0
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (killed, whole))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] - theirs[name]).norm() <= 1e-3 * theirs[name].norm() for name in ours)
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (killed, whole)]
    assert len(lines[0]) >= len(lines[1])


@pytest.mark.parametrize(
    ("more", "status", "complaint"),
    [
        (("--rate", "1e30"), 1, "is no number: lower --rate"),
        (("--context", "50"), 2, "expected at most 50 tokens"),
        (("--role", "teacher"), 2, "role: expected one of guide, answerer, solver, program, found 'teacher'"),
        (("--layers", "9"), 2, "layers: the base has 2, found 9"),
        (("--data", "absent.jsonl"), 2, "absent.jsonl"),
    ],
)
def test_what_cannot_be_trained(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], status: int, complaint: str
) -> None:
    assert sgft.main(options(base, tmp_path / "out", *more)) == status
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sgft-edge: error: ")]
    assert complaint in line


def test_settings(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "a.toml"
    config.write_text('base = "x"\nout = "y"\nrnak = 4\n')
    assert sgft.main(["--config", str(config)]) == 2
    assert "unknown key 'rnak': did you mean rank" in capsys.readouterr().err
    config.write_text('base = "x"\nout = "y"\nrank = "four"\n')
    assert sgft.main(["--config", str(config)]) == 2
    assert "rank: expected int, found 'four'" in capsys.readouterr().err
    (tmp_path / "run" / "state").mkdir(parents=True)
    (tmp_path / "run" / "state" / ".settings.json.0123abcd").write_text("a run that was killed at once")
    assert sgft.main(options(base, tmp_path / "run", "--epochs", "0.2")) == 0
    assert sgft.main(options(base, tmp_path / "run", "--epochs", "0.2", "--rank", "2")) == 2
    assert "expected the settings of the run that began there, found other rank" in capsys.readouterr().err


def test_one_adapter_for_several_roles(base: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    more = ("--role", "guide+solver", "--renumbered", "2", "--epochs", "0.2", "--validity", "3")
    assert sgft.main(options(base, out, *more)) == 0
    record = json.loads((out / "training.json").read_text())
    rows = read_sg(TRAIN)[:24]
    computing = [row for row in rows if row.expressions]
    assert len(rows) + len(computing) < record["data"]["examples"] <= len(rows) + 3 * len(computing)
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["valid"] == 0.0  # of a tiny random model
    assert "as guide+solver" in (out / "README.md").read_text()
    for roles in ("guide+guide", "guide+teacher", ""):
        assert sgft.main(options(base, tmp_path / "no", "--role", roles)) == 2


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_epoch_is_kept_or_the_last(
    base: Path, tmp_path: Path, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 2.0])
    monkeypatch.setattr(Trainer, "dev_loss", lambda *_: next(losses))
    out = tmp_path / keep
    assert sgft.main(options(base, out, "--epochs", "2", "--validity", "0", "--keep", keep)) == 0
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    epochs = [row for row in metrics if "dev_loss" in row]
    kept = json.loads((out / "training.json").read_text())["metrics"]
    assert kept == epochs[0 if keep == "best" else 1]
    state = load_file(out / "state" / "state.safetensors")
    saved = load_file(out / "adapter_model.safetensors")
    assert (keep == "last") == all(
        torch.equal(value, state[f"weight.{name.replace('.weight', '.default.weight')}"])
        for name, value in saved.items()
    )


def test_a_base_in_4_bits(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "qlora"
    status = sgft.main(options(base, out, "--load-in-4bit", "true", "--epochs", "1", "--validity", "0"))
    if importlib.util.find_spec("bitsandbytes") is None:
        assert status == 2
        assert "pip install bitsandbytes" in capsys.readouterr().err
        return
    assert status == 0
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    assert all("lora_" in name for name in load_file(out / "adapter_model.safetensors"))


def test_packed_weights_cannot_be_packed_again(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sgft.main(options(llama, tmp_path / "out", "--load-in-4bit", "true")) == 2
    assert "load_in_4bit: expected a base of plain weights" in capsys.readouterr().err
    assert sgft.main(options(llama, tmp_path / "no", "--load-in-4bit", "true", "--method", "lisa")) == 2
    assert "LISA trains the base itself" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_its_checkpoint(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options(base, tmp_path / "run", "--epochs", "2", "--validity", "0")
    plain = Trainer._loss

    def broken(trainer: Trainer, *rows: Any) -> torch.Tensor:
        return plain(trainer, *rows) * (float("nan") if trainer.progress.step == 7 else 1.0)

    monkeypatch.setattr(Trainer, "_loss", broken)
    assert sgft.main(given) == 1
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("sgft-edge: error: the loss of step 8 is no number: lower")
    )
    kept = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert all(value.isfinite().all() for value in kept.values())
    monkeypatch.setattr(Trainer, "_loss", plain)
    assert sgft.main(given) == 0
    assert "goes on after step 6 of 12" in capsys.readouterr().err
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))


FULL_DISK = """
import resource, sys
from train import sgft
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(sgft.main(sys.argv[2:]))
"""


def test_a_full_disk(base: Path, tmp_path: Path) -> None:
    """No file may be longer than the limit: neither the adapter nor the state can be saved."""
    out = tmp_path / "run"
    given = options(base, out, "--epochs", "1", "--validity", "0")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "40000", *given], capture_output=True, text=True, cwd=DATA.parents[2]
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"sgft-edge: error: {out}: cannot write there (")
    assert sorted(path.name for path in out.iterdir()) == ["metrics.jsonl", "state"]
    assert [path.name for path in (out / "state").iterdir()] == ["settings.json"]
    assert sgft.main(given) == 0


def test_a_full_disk_leaves_the_last_result(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(base, tmp_path / "run", "--epochs", "2", "--validity", "0", "--keep", "last")
    saved = []

    def full(path: Path, metrics: Any) -> None:
        saved.append(path)
        if len(saved) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.record.draw_curves", full)
    assert sgft.main(given) == 1
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert record["metrics"]["step"] == 6
    assert not (tmp_path / "run" / ".new").exists()
    assert sgft.main(given) == 0
    record = json.loads((tmp_path / "run" / "training.json").read_text())
    assert record["metrics"]["step"] == 12
