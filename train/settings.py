"""The settings of a training: a TOML file, each key of which a flag overrides."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgft_edge.errors import InputError
from train.rows import ROLES

METHODS = ("lora", "alora", "lisa")
DTYPES = ("auto", "float32", "bfloat16")
KEEP = ("best", "last")
METRICS = "metrics.jsonl"  # in the folder of a run


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """What is trained on what, and how. Raises `InputError` for a value that cannot be used.

    `base` is a folder, a GGUF file, a known model's name, or OWNER/NAME on the hub; `role` is one of `rows.ROLES`, or
    several joined by "+" for an adapter that can do all of it. `data` are files of solution guidance, each whole
    or, as FILE:N, the first N rows that are not left out; `held_out` is a file that names rows that are, by an id a
    line; `dev` is the file that progress is judged by. `rows` limits all of the data together, after it was
    shuffled (0: all rows), `guide_rows` how many of them the role guide learns from, `renumbered` adds so many
    copies of each row with other numbers, for the roles that write expressions. `adapter` is the folder of an adapter
    of the same form to go on from. `method` is a LoRA, an activated
    LoRA, or LISA, which trains the base itself: `lisa_blocks` of its blocks at a time, drawn anew every
    `lisa_every` steps. `layers` is how many of the upper blocks have a LoRA (0: all), `dropout` is the LoRA's.
    `batch` counts rows, `accumulate` batches to one step of the optimizer, `warmup` is a share of all steps.
    `dtype` is that of the base's arithmetic: auto is bfloat16 on a GPU, float32 elsewhere; `load_in_4bit` holds the
    base's weights in NF4, for a GPU with bitsandbytes. The best epoch is the one with the most valid guidances
    among those that a guide writes for the first `validity` dev rows, and among equals the one with the least dev
    loss. `keep` is "best", or "last": a model can solve more while its dev loss rises. Training ends when more than
    `patience` epochs have passed since the best one. Rows may have `context` tokens; the state is saved every
    `save_minutes`. `checkpointing` computes each block again for its gradients instead of keeping what it computed:
    less memory for more time. Without `prefix_gradients` the fixed beginning of all prompts is read by the adapter as
    it is, and what is learned does not reach back through it: the same loss in less time.
    """

    base: str
    out: str
    role: str = "guide"
    data: tuple[str, ...] = ("train/data/solution_guidance.train.jsonl",)
    held_out: str = ""
    dev: str = "train/data/solution_guidance.dev.jsonl"
    rows: int = 0
    guide_rows: int = 0
    renumbered: int = 0
    adapter: str = ""
    method: str = "lora"
    lisa_blocks: int = 2
    lisa_every: int = 10
    rank: int = 16
    alpha: float = 32.0
    rslora: bool = False
    dora: bool = False
    dropout: float = 0.0
    layers: int = 0
    rate: float = 2e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    clip: float = 1.0
    epochs: float = 2.0
    batch: int = 8
    accumulate: int = 1
    seed: int = 0
    dtype: str = "auto"
    load_in_4bit: bool = False
    checkpointing: bool = False
    prefix_gradients: bool = True
    context: int = 2048
    patience: int = 2
    validity: int = 32
    keep: str = "best"
    save_minutes: float = 5.0

    @property
    def roles(self) -> list[str]:
        return self.role.split("+")

    def __post_init__(self) -> None:
        for name, found, known in (
            *(("role", role, ROLES) for role in self.roles),
            ("method", self.method, METHODS),
            ("dtype", self.dtype, DTYPES),
            ("keep", self.keep, KEEP),
        ):
            if found not in known:
                raise InputError(f"{name}: expected one of {', '.join(known)}, found {found!r}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "float" and not math.isfinite(value):
                raise InputError(f"{field.name}: expected a finite number, found {value}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed: expected a whole number from 0 to {2**32 - 1}, found {self.seed}")
        if len(set(self.roles)) < len(self.roles):
            raise InputError(f"role: expected each role once, found {self.role!r}")
        for name in ("rank", "batch", "accumulate", "context", "lisa_blocks", "lisa_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, found {getattr(self, name)}")
        for name in (
            "rows",
            "guide_rows",
            "renumbered",
            "layers",
            "warmup",
            "weight_decay",
            "dropout",
            "patience",
            "validity",
        ):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: expected at least 0, found {getattr(self, name)}")
        for name in ("rate", "epochs", "alpha", "clip", "save_minutes"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: expected more than 0, found {getattr(self, name)}")
        if self.warmup >= 1 or self.dropout >= 1:
            raise InputError(f"warmup and dropout: expected less than 1, found {self.warmup} and {self.dropout}")
        if self.method == "lisa" and self.load_in_4bit:
            raise InputError("load_in_4bit: LISA trains the base itself: choose one")
        if self.method == "lisa" and self.adapter:
            raise InputError("adapter: LISA trains the base itself: choose one")
        if self.method == "alora" and self.dora:
            raise InputError("dora: an activated LoRA has no such form: choose one")


def read_settings(path: Path | None, overrides: Mapping[str, Any]) -> TrainSettings:
    """The settings in a TOML file with some of them replaced. Raises `InputError` that names the key."""
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as e:
            raise InputError(f"--config: cannot read {path}: {e.strerror or e}") from e
        except (ValueError, RecursionError) as e:
            raise InputError(f"--config: {path} is not TOML: {e}") from e
    table |= {key: value for key, value in overrides.items() if value not in (None, ())}
    fields = {field.name: field for field in dataclasses.fields(TrainSettings)}
    for key, value in table.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=2)
            raise InputError(f"unknown key {key!r}" + (f": did you mean {' or '.join(near)}?" if near else ""))
        table[key] = _typed(key, value, str(fields[key].type))
    for key in ("base", "out"):
        if key not in table:
            raise InputError(f"expected {key!r}, in the config or as --{key}, found none")
    return TrainSettings(**table)


def _typed(key: str, value: Any, kind: str) -> Any:
    if kind == "float" and type(value) is int:
        return float(value)
    if kind == "tuple[str, ...]":
        several = (value,) if isinstance(value, str) else value
        if not isinstance(several, list | tuple) or not several or not all(isinstance(part, str) for part in several):
            raise InputError(f"{key}: expected a file, or a list of files, found {value!r}")
        return tuple(several)
    if type(value).__name__ != kind:
        raise InputError(f"{key}: expected {kind}, found {value!r}")
    return value
