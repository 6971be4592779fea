"""What a training leaves: an adapter's folder with its record, metrics, loss curves, and a model card."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from convert import vocabulary
from convert.base import Base
from convert.errors import ConversionError
from convert.record import RECORD, TrainedBase, TrainingRecord
from sgft_edge.host.folders import flush
from sgft_edge.host.locks import alone
from sgft_edge.reasoning import prompts
from sgft_edge.store.places import entry_for
from train.settings import METRICS, TrainSettings

if TYPE_CHECKING:
    from peft import PeftModel

    from convert.header import Metadata

_PACKAGES = ("torch", "transformers", "peft", "safetensors", "llama-cpp-python")


def record_of(
    base: Base, tokenizer: Metadata, settings: TrainSettings, data: Mapping[str, Any], processes: int = 1
) -> TrainingRecord:
    """The facts of a training, without its results; `data` says how many examples there are, of which files."""
    return TrainingRecord(
        base=TrainedBase(
            name=entry.name if base.is_gguf and (entry := entry_for(base.path)) else base.name,
            architecture=base.architecture,
            kind="gguf, dequantized" if base.is_gguf else "safetensors",
            digest=base.digest(),
            tokenizer_digest=vocabulary.digest(tokenizer),
        ),
        data=dict(data),
        processes=processes,
        prompts_digest=prompts.guide_digest("program" in settings.roles),
        settings={
            key: value
            for key, value in dataclasses.asdict(settings).items()
            if key not in ("base", "out", "data", "dev", "adapter")
        },
        versions={package: importlib.metadata.version(package) for package in _PACKAGES},
    )


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise `ConversionError` where the disk refuses what is written in `folder`."""
    try:
        yield
    except (OSError, SafetensorError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise ConversionError(
            f"{folder}: cannot write there ({reason}): make room, then start again: it goes on from the last checkpoint"
        ) from e


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a training's folder. Raises `ConversionError` where another training has it, or the disk refuses."""
    with contextlib.ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone(folder.with_name(f".{folder.name}.lock"), wait=False))
        except BlockingIOError as e:
            raise ConversionError(f"--out {folder}: another training writes there now: wait until it is done") from e
        except OSError as e:
            raise ConversionError(f"--out {folder}: cannot write there: {e.strerror or e}") from e
        yield


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a folder for files that take their places in `folder` at the end.

    Where anything fails before, `folder` stays as it was. Raises `ConversionError` where the disk refuses.
    """
    new = folder / ".new"
    shutil.rmtree(new, ignore_errors=True)
    try:
        with writing(folder):
            new.mkdir(parents=True)
            yield new
            for path in new.iterdir():
                flush(path)
            for path in new.iterdir():
                path.replace(folder / path.name)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def save_adapter(folder: Path, model: PeftModel, base: str, mark: Sequence[int]) -> None:
    """Write the adapter as PEFT does."""
    config = model.peft_config["default"]
    config.base_model_name_or_path = base
    config.alora_invocation_tokens = list(mark) or None
    model.save_pretrained(str(folder), save_embedding_layers=False)


def save_record(folder: Path, record: TrainingRecord, metrics: Sequence[Mapping[str, Any]]) -> None:
    """Write the facts and figures of a training, its curves, and a card."""
    dataclasses.replace(record, metrics=metrics[-1] if metrics else {}).write(folder)
    draw_curves(folder / "loss.png", metrics)
    (folder / "README.md").write_text(_card(record, metrics), encoding="utf-8")


def draw_curves(path: Path, metrics: Sequence[Mapping[str, Any]]) -> None:
    """Training and dev loss over the steps, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, label in (("loss", "training"), ("dev_loss", "dev")):
        points = [(row["step"], row[key]) for row in metrics if row.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="o" if key == "dev_loss" else None, linewidth=1)
    axes.set(xlabel="step", ylabel="loss, nats a token")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def _card(record: TrainingRecord, metrics: Sequence[Mapping[str, Any]]) -> str:
    settings, base, data = record.settings, record.base, record.data
    last = metrics[-1] if metrics else {}
    files = ", ".join(f"{part['rows']} rows of `{part['file']}`" for part in data["files"])
    rank = "" if settings["method"] == "lisa" else f" of rank {settings['rank']}"
    return f"""# {base.name} as {record.role}

A {settings["method"]}{rank}, trained by Solution-Guidance Fine-Tuning
(https://arxiv.org/abs/2412.09906) for {settings["epochs"]:g} epochs on
{data["examples"]} examples made of {files}.
Base: `{base.name}` ({base.kind}, sha256 `{base.digest[:16]}`). Prompts: `{record.prompts_digest[:16]}`.
Dev loss at the end: {last.get("dev_loss")}. All settings and versions: `{RECORD}`; all figures: `{METRICS}`.
"""
