"""The training loop: batches of rows of like length, steps, dev losses, and a state that survives kill -9."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from convert.errors import ConversionError
from train.forward import Batch, Past, collate, loss_of, read_shared, split_at, stack
from train.lisa import Blocks
from train.processes import Processes
from train.record import replacing
from train.rows import Example
from train.settings import TrainSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_BUCKET = 16  # batches whose rows are sorted by length together


class NotANumber(ConversionError):
    """The loss became NaN or infinite."""


@dataclass
class Progress:
    """Where a training stands: `step` counts the optimizer's steps, `tokens` those read and learned from."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = math.inf
    most_valid: float = 0.0
    waited: int = 0


class Trainer:
    """A model with an adapter, its rows, and the optimizer. Everything random follows from the seed and the step."""

    def __init__(
        self,
        model: PeftModel | PreTrainedModel,
        settings: TrainSettings,
        examples: Sequence[Example],
        invocation: Sequence[int],
        processes: Processes,
        autocast: torch.dtype | None,
    ) -> None:
        self.model, self.settings, self.examples = model, settings, examples
        self.processes, self.device, self._autocast = processes, processes.device, autocast
        self._starts = [split_at(example, settings.method, invocation) for example in examples]
        self._invocation = invocation
        self._pasts: dict[tuple[int, ...], Past] = {}
        self.parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.rate, weight_decay=settings.weight_decay
        )
        self._blocks = Blocks(model, settings) if settings.method == "lisa" else None
        self.batches_per_epoch = math.ceil(len(examples) / settings.batch)
        self.steps_per_epoch = math.ceil(self.batches_per_epoch / settings.accumulate)
        self.steps = max(1, round(self.steps_per_epoch * settings.epochs))
        self.progress = Progress()

    def rate(self, step: int) -> float:
        """Warm-up, then a cosine down to a tenth."""
        warmup = max(1, round(self.steps * self.settings.warmup))
        if step < warmup:
            return self.settings.rate * (step + 1) / warmup
        share = (step - warmup) / max(1, self.steps - warmup)
        return self.settings.rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))

    def order(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch as row numbers: shuffled, rows of like length together, batches shuffled again."""
        draw = random.Random(f"{self.settings.seed} {epoch}")
        rows = list(range(len(self.examples)))
        draw.shuffle(rows)
        size = self.settings.batch
        batches = []
        for i in range(0, len(rows), size * _BUCKET):
            bucket = sorted(rows[i : i + size * _BUCKET], key=lambda row: len(self.examples[row]) - self._starts[row])
            batches += [bucket[j : j + size] for j in range(0, len(bucket), size)]
        draw.shuffle(batches)
        return batches

    def train_step(self) -> float:
        """One step of the optimizer; returns the mean loss of its learned tokens in nats. Raises `NotANumber`."""
        step, settings = self.progress.step, self.settings
        began = time.perf_counter()
        epoch, within = divmod(step, self.steps_per_epoch)
        batches = self.order(epoch)[within * settings.accumulate : (within + 1) * settings.accumulate]
        torch.manual_seed((settings.seed * 1_000_003 + step) * self.processes.count + self.processes.rank)
        self.model.train()
        if self._blocks is not None:
            self._blocks.choose(step, self.optimizer)
        learned = sum(sum(self.examples[row].learned) for batch in batches for row in batch)
        total = 0.0
        for batch in batches:
            self.progress.tokens += sum(len(self.examples[row]) for row in batch)
            if rows := self.processes.share(batch):
                loss = self._loss([self.examples[row] for row in rows], [self._starts[row] for row in rows])
                (loss / learned).backward()
                total += float(loss.detach())
        total = self.processes.total(total)
        if not math.isfinite(total):
            raise NotANumber(f"the loss of step {step + 1} is no number: lower --rate; the last checkpoint is kept")
        trained = [parameter for parameter in self.parameters.values() if parameter.requires_grad]
        self.processes.sum_gradients(trained)
        torch.nn.utils.clip_grad_norm_(trained, settings.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.seconds += time.perf_counter() - began
        return total / learned

    def dev_loss(self, examples: Sequence[Example], advance: Callable[[], None] = lambda: None) -> float:
        """Mean loss of the learned tokens of other rows, in nats."""
        self.model.eval()
        total, learned = 0.0, 0
        ordered = self.processes.share(sorted(examples, key=len))
        with torch.no_grad():
            for i in range(0, len(ordered), self.settings.batch):
                batch = ordered[i : i + self.settings.batch]
                starts = [split_at(example, self.settings.method, self._invocation) for example in batch]
                total += float(self._loss(batch, starts))
                learned += sum(sum(example.learned) for example in batch)
                advance()
        return self.processes.total(total) / max(1.0, self.processes.total(learned))

    def arithmetic(self) -> torch.autocast:
        """The types that the base computes in."""
        return torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None)

    def _loss(self, examples: Sequence[Example], starts: Sequence[int]) -> torch.Tensor:
        if self.settings.method != "alora":
            starts = [_common([e.prompt[:start] for e, start in zip(examples, starts, strict=True)])] * len(examples)
        batch = collate(examples, starts)
        batch = Batch(*(getattr(batch, name).to(self.device) for name in ("tokens", "valid", "learned", "starts")))
        with self.arithmetic():
            if self.settings.method != "alora":
                with torch.set_grad_enabled(self.settings.prefix_gradients and torch.is_grad_enabled()):
                    past = read_shared(self.model, examples[0].prompt[: starts[0]])
            else:
                past = stack([self._past(example, start) for example, start in zip(examples, starts, strict=True)])
            return loss_of(self.model, batch, past)

    def _past(self, example: Example, start: int) -> Past:
        """What the base alone makes of a prompt before the invocation: read once, kept in 16 bits."""
        key = example.prompt[:start]
        if key not in self._pasts:
            with torch.no_grad(), self.model.disable_adapter():
                past = read_shared(self.model, key)
            kept = torch.float32 if self._autocast is None else self._autocast
            self._pasts[key] = [(keys.to(kept).cpu(), values.to(kept).cpu()) for keys, values in past]
        return [(keys.to(self.device), values.to(self.device)) for keys, values in self._pasts[key]]

    # ---------------------------------------------------------------- state

    def save(self, folder: Path) -> None:
        """Write all that goes on from here; a kill in between, or a full disk, leaves the last whole state."""
        tensors = {f"weight.{name}": value.detach().cpu().contiguous() for name, value in self.parameters.items()}
        for name, value in self.parameters.items():
            for key, part in self.optimizer.state.get(value, {}).items():
                tensors[f"{key}.{name}"] = torch.as_tensor(part).detach().cpu().contiguous()
        facts = {key: repr(value) for key, value in vars(self.progress).items()}
        with replacing(folder) as new:
            save_file(tensors, new / "state.safetensors", facts)

    def resume(self, folder: Path) -> bool:
        """Go on from a saved state, if there is one."""
        path = folder / "state.safetensors"
        if not path.is_file():
            return False
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            facts: dict[str, str] = file.metadata()
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(tensors.pop(f"weight.{name}"))
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            value = self.parameters[name]
            self.optimizer.state[value][part] = tensor if part == "step" else tensor.to(value.device)
        self.progress = Progress(**{key: type(value)(facts[key]) for key, value in vars(Progress()).items()})
        return True


def _common(prompts: Sequence[tuple[int, ...]]) -> int:
    """The length of what all of them begin with: prompts of several roles share less than those of one."""
    columns = zip(*prompts, strict=False)
    return next((i for i, tokens in enumerate(columns) if len(set(tokens)) > 1), min(map(len, prompts)))
