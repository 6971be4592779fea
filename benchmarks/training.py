"""One epoch of `train.sgft`'s loop against transformers' `Trainer` with PEFT: the same LoRA, rows, batches, arithmetic.

usage: python -m benchmarks.training [--base smollm2] [--role guide+solver] [--rows 64] [--dtype bfloat16] [--repeats 3]

Each run is a process of its own, in turn; what counts is the time from the loaded base to the saved adapter, and the
peak memory of the whole process. Tokens are those of the rows, whoever computes a shared prompt once or many times.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import click

WAYS = ("ours", "trainer")


def measure(way: str, settings: Any) -> dict[str, float]:
    """Train one epoch; seconds, tokens a second, the mean loss of the learned tokens in nats, and megabytes."""
    from convert.base import find_base
    from train import sgft
    from train.mix import read_mix
    from train.model import adapted, arithmetic_of, invocation_of, load
    from train.processes import Processes
    from train.rows import Writer

    processes = Processes()
    base = find_base(settings.base)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, _ = sgft._vocabulary(base, Path(folder))
        rows = read_mix(settings).rows
        examples = sgft._examples(Writer(vocabulary), rows, settings, settings.guide_rows, settings.renumbered)
        mark = invocation_of(vocabulary, examples) if settings.method == "alora" else []
        arithmetic = arithmetic_of(settings, processes.device)
        loaded = load(base, settings, arithmetic if way == "ours" else None)
        began = time.perf_counter()
        if way == "ours":
            from train.loop import Trainer

            model = adapted(loaded, settings).to(processes.device)
            trainer = Trainer(model, settings, examples, mark, processes, arithmetic)
            losses = [trainer.train_step() for _ in range(trainer.steps)]
            loss = sum(losses) / len(losses)
        else:
            model = adapted(loaded, settings)
            loss = plainly(model, settings, examples, folder, arithmetic is not None)
        model.save_pretrained(folder, save_embedding_layers=False)
        seconds = time.perf_counter() - began
    tokens = sum(map(len, examples))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "tokens_per_second": tokens / seconds, "loss": loss, "peak_mb": peak}


def plainly(model: Any, settings: Any, examples: list[Any], folder: str, bf16: bool) -> float:
    """The same with transformers' `Trainer`, as its documentation shows it."""
    import torch
    from transformers import Trainer, TrainingArguments

    rows = [
        {
            "input_ids": [*example.prompt, *example.completion],
            "labels": [-100] * len(example.prompt)
            + [t if learned else -100 for t, learned in zip(example.completion, example.learned, strict=True)],
        }
        for example in examples
    ]

    def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch)
        fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
        for row in batch:
            row["attention_mask"] = [1] * len(row["input_ids"])
        return {k: torch.tensor([row[k] + [v] * (width - len(row[k])) for row in batch]) for k, v in fill.items()}

    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        num_train_epochs=settings.epochs,
        learning_rate=settings.rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,  # below 1 it is a share
        max_grad_norm=settings.clip,
        train_sampling_strategy="group_by_length",
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=settings.seed,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)  # type: ignore[arg-type]
    return float(trainer.train().training_loss)


@click.command()
@click.option("--base", default="smollm2", show_default=True)
@click.option("--role", default="guide+solver", show_default=True)
@click.option("--method", default="lora", show_default=True)
@click.option("--rows", default=64, show_default=True)
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--way", type=click.Choice(WAYS), hidden=True)
def main(way: str | None, repeats: int, **given: Any) -> None:
    """Print both ways' medians, and their ratios."""
    if way:
        from train.settings import TrainSettings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            print(json.dumps(measure(way, TrainSettings(out="unused", epochs=1.0, **given))))
        return
    flags = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    for _ in range(repeats):
        for name in WAYS:
            command = [sys.executable, "-m", "benchmarks.training", "--way", name, *flags]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
    middle = {name: {key: median(run[key] for run in found) for key in found[0]} for name, found in runs.items()}
    for name, found in middle.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()))
    ours, theirs = middle["ours"], middle["trainer"]
    print(
        f"ours / trainer: {ours['tokens_per_second'] / theirs['tokens_per_second']:.2f} tokens a second, "
        f"{ours['peak_mb'] / theirs['peak_mb']:.2f} peak memory"
    )


if __name__ == "__main__":
    main()
