"""Train a LoRA on solution guidance: `python -m train.sgft --config train/configs/NAME.toml`; flags override keys.

What is trained on is what the runtime will show: its prompts, its forced texts, llama.cpp's own token ids. A run that
was interrupted goes on where it was saved last, to the same result.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgft_edge.errors import InputError
from sgft_edge.host.files import write_atomically
from sgft_edge.llama.model import Model
from sgft_edge.terminal import words
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import remark, say
from train.check_sg import Row, read_sg
from train.display import display
from train.mix import read_mix
from train.renumber import renumbered
from train.rows import Example, Writer
from train.settings import METRICS, TrainSettings, read_settings

if TYPE_CHECKING:
    from convert.base import Base
    from convert.header import Metadata
    from train.loop import Trainer
    from train.processes import Processes

STATE = "state"


def train(settings: TrainSettings) -> Path:
    """Train, or go on with it; returns the adapter's folder. Raises `InputError`, `ConversionError`."""
    from convert.threads import heed_thread_limit
    from train.processes import Processes
    from train.record import held

    heed_thread_limit()
    processes = Processes()
    with held(Path(settings.out)) if processes.is_main else nullcontext():
        return _train(settings, Path(settings.out), processes)


def _train(settings: TrainSettings, out: Path, processes: Processes) -> Path:
    from convert.base import find_base

    if processes.is_main:
        _begin(out, settings)
    processes.wait()
    metrics = _metrics(out)
    base = find_base(settings.base)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, about their own future
        vocabulary, tokenizer = _vocabulary(base, Path(folder))
        try:
            writer = Writer(vocabulary)
            mix, known = read_mix(settings), read_sg(Path(settings.dev))
            examples = _examples(writer, mix.rows, settings, settings.guide_rows, settings.renumbered)
            dev = _examples(writer, known, settings)
            checked = known[: settings.validity] if "guide" in settings.roles else []
            data = {"examples": len(examples), "files": [dataclasses.asdict(part) for part in mix.parts]}
            return _Run(settings, base, tokenizer, writer, examples, dev, checked, data, out, metrics, processes).run()
        finally:
            vocabulary.close()


class _Run:
    """One training from the loaded model to the saved adapter."""

    def __init__(
        self,
        settings: TrainSettings,
        base: Base,
        tokenizer: Metadata,
        writer: Writer,
        examples: Sequence[Example],
        dev: Sequence[Example],
        checked: Sequence[Row],
        data: dict[str, Any],
        out: Path,
        metrics: list[dict[str, Any]],
        processes: Processes,
    ) -> None:
        from train.loop import Trainer
        from train.model import adapted, arithmetic_of, invocation_of, load
        from train.record import record_of, writing
        from train.start import start_from

        self.settings, self.out, self.dev = settings, out, dev
        self.writer, self.checked, self.processes = writer, checked, processes
        self.base, self.tokenizer = base, tokenizer
        autocast = arithmetic_of(settings, processes.device)
        self.mark = invocation_of(writer.model, list(examples)) if settings.method == "alora" else []
        self.model = adapted(load(base, settings, autocast), settings).to(processes.device)
        if settings.adapter:
            data = data | {"adapter_sha256": start_from(self.model, Path(settings.adapter), base)}
        self.trainer: Trainer = Trainer(self.model, settings, examples, self.mark, processes, autocast)
        self.record = record_of(base, tokenizer, settings, data, processes.count)
        if self.trainer.resume(out / STATE) and processes.is_main:
            remark(f"goes on after step {self.trainer.progress.step} of {self.trainer.steps}")
        self.metrics = [row for row in metrics if row["step"] <= self.trainer.progress.step]
        if processes.is_main:
            with writing(out):
                write_atomically(out / METRICS, "".join(map(_line, self.metrics)))

    def run(self) -> Path:
        trainer = self.trainer
        saved = time.monotonic()
        with display(trainer.steps) if self.processes.is_main else nullcontext(lambda _: None) as show:
            while trainer.progress.step < trainer.steps and trainer.progress.waited <= self.settings.patience:
                row = self._step()
                show(row)
                if time.monotonic() - saved > 60 * self.settings.save_minutes or "dev_loss" in row:
                    self._save()
                    saved = time.monotonic()
        self.processes.wait()
        return self.out

    def _step(self) -> dict[str, Any]:
        """One step, and at the end of an epoch what it has brought; returns its metrics."""
        trainer = self.trainer
        loss = trainer.train_step()
        step = trainer.progress.step
        row: dict[str, Any] = {"step": step, "loss": loss, "rate": trainer.rate(step - 1)}
        row |= {"tokens": trainer.progress.tokens, "seconds": round(trainer.progress.seconds, 2)}
        if step % trainer.steps_per_epoch == 0 or step == trainer.steps:
            row |= self._judge()
            self._keep_the_best(row)
        self.metrics.append(row)
        if self.processes.is_main:
            _append(self.out, row)
        return row

    def _save(self) -> None:
        if self.processes.is_main:
            self.trainer.save(self.out / STATE)

    def _judge(self) -> dict[str, float]:
        from train.validity import valid_share

        found = {"dev_loss": self.trainer.dev_loss(self.dev)}
        if self.checked:
            valid = 0.0
            if self.processes.is_main:
                prompts = self.writer.examples(list(self.checked), "guide")
                valid = valid_share(self.trainer, self.writer.model, self.checked, prompts)
            found["valid"] = self.processes.total(valid)
        return found

    def _keep_the_best(self, row: dict[str, Any]) -> None:
        progress = self.trainer.progress
        valid = row.get("valid", 0.0)
        better = (valid, -row["dev_loss"]) > (progress.most_valid, -progress.best)
        progress.waited = 0 if better else progress.waited + 1
        if better:
            progress.most_valid, progress.best = valid, row["dev_loss"]
        if self.processes.is_main and (better or self.settings.keep == "last"):
            self._save_result([*self.metrics, row])

    def _save_result(self, metrics: list[dict[str, Any]]) -> None:
        from train.lisa import save_model
        from train.record import replacing, save_adapter, save_record

        with replacing(self.out) as new:
            if self.settings.method == "lisa":
                save_model(new, self.model, self.base, self.tokenizer)
            else:
                save_adapter(new, self.model, self.record.base.name, self.mark)
            save_record(new, self.record, metrics)


def _begin(out: Path, settings: TrainSettings) -> None:
    """Prepare the folder, or find it to be that of the same run. Raises `InputError` for another's."""
    from train.record import writing

    own = {key: value for key, value in dataclasses.asdict(settings).items() if key != "save_minutes"}
    path = out / STATE / "settings.json"
    if path.is_file():
        defaults = {field.name: field.default for field in dataclasses.fields(TrainSettings)}
        kept = defaults | json.loads(path.read_text(encoding="utf-8"))  # a newer version has more settings
        other = sorted(key for key, value in json.loads(json.dumps(own)).items() if _listed(kept[key]) != value)
        if other:
            raise InputError(
                f"--out {out}: expected the settings of the run that began there, found other {', '.join(other)}: "
                "choose another folder"
            )
        return
    begun = f".{path.name}."  # where a run was killed before it had written them
    if any(found != path.parent and not found.name.startswith(begun) for found in out.rglob("*")):
        raise InputError(f"--out {out}: expected a folder that is not there, or one of a run to go on with")
    with writing(out):
        write_atomically(path, json.dumps(own, indent=1))


def _listed(value: Any) -> Any:
    """A setting as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def _metrics(out: Path) -> list[dict[str, Any]]:
    """What a run that is to go on has written."""
    path = out / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _append(out: Path, row: dict[str, Any]) -> None:
    from train.record import writing

    with writing(out), (out / METRICS).open("a", encoding="utf-8") as file:
        file.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _vocabulary(base: Base, folder: Path) -> tuple[Model, Metadata]:
    """llama.cpp's own tokenizer of the base, and its metadata. That of a folder is written as a GGUF file first."""
    from convert import verify
    from convert.checkpoint import read_config
    from convert.vocabulary import write_vocabulary

    if base.is_gguf:
        return Model(base.path, vocab_only=True), base.tokenizer({})
    config = read_config(base.path)
    tokenizer = base.tokenizer(config)
    path = folder / "vocabulary.gguf"
    write_vocabulary(path, tokenizer)
    wrong = [check for check in verify.check_tokens(base, path) if not check.passed]
    if wrong:
        raise InputError(f"{base.path}: llama.cpp and transformers tokenize differently: {wrong[0].found}")
    return Model(path, vocab_only=True), tokenizer


def _examples(
    writer: Writer, rows: Sequence[Row], settings: TrainSettings, guide_rows: int = 0, copies: int = 0
) -> list[Example]:
    """The rows as examples of each role, with `copies` of other numbers; `guide_rows` for the guide (0: all)."""
    draws = [random.Random(f"{settings.seed} {copy}") for copy in range(copies)]
    others = [other for draw in draws for row in rows if (other := renumbered(row, draw))]
    guided = random.Random(settings.seed).sample(rows, guide_rows) if 0 < guide_rows < len(rows) else rows
    examples = [
        example
        for role in settings.roles
        for example in writer.examples(list(guided) if role == "guide" else [*rows, *others], role)
    ]
    for example in examples:
        if len(example) > settings.context:
            raise InputError(
                f"{example.id}: expected at most {settings.context} tokens, found {len(example)}: "
                "shorten it, or raise --context"
            )
    if not examples:
        raise InputError(f"{rows[0].file}: expected rows for the role {settings.role}, found none")
    return examples


def _options(function: Any) -> Any:
    for field in reversed(dataclasses.fields(TrainSettings)):
        flag = f"--{field.name.replace('_', '-')}"
        several = field.type == "tuple[str, ...]"
        kind = str if several else {"int": int, "float": float, "bool": bool, "str": str}[str(field.type)]
        default = "" if field.default in (dataclasses.MISSING, "") else f"[default: {_shown(field.default)}]"
        function = click.option(flag, field.name, type=kind, multiple=several, help=default or None)(function)
    return function


def _shown(default: Any) -> str:
    return ", ".join(default) if isinstance(default, tuple) else str(default)


@click.command("sgft", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=words.path, metavar="FILE", help="Settings as TOML.")
@_options
def command(config: Path | None, **given: Any) -> None:
    """Train a LoRA on solution guidance; a run that was interrupted goes on."""
    settings = read_settings(config, given)
    try:
        import peft  # noqa: F401
    except ImportError as e:
        raise click.ClickException(f"{e}: run `pip install -e '.[train]'` in the checkout") from e
    say(train(settings))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv, "sgft")


if __name__ == "__main__":
    sys.exit(main())
