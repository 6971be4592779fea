"""How an engine runs on this machine: what `sgft-edge bench --tune` found best for a model, kept in machine.toml.

A tuning belongs to a model's SHA-256, a CPU and the hardware threads that a process may use; under any other it does
not count.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sgft_edge.errors import InputError
from sgft_edge.host.files import changing, config_folder, refusal, toml_tables, write_atomically
from sgft_edge.host.machine import cpu_name, logical_cores
from sgft_edge.llama.lookup import Drafting

FLASH_ATTENTION = ("auto", "on", "off")
KV_TYPES = ("f16", "q8_0")

_HEADER = "# Written by `sgft-edge bench --tune`; it may be deleted.\n"


@dataclass(frozen=True, slots=True)
class Tuning:
    """CPU threads for decoding and for reading prompts, tokens of one batch, and how attention is computed and kept.

    `draft_tokens` are guessed ahead where a text is decoded alone (0: none); a batch with them takes `draft_cost` times
    as long as one without. Raises `InputError` for a value that cannot be.
    """

    threads: int
    prefill_threads: int
    batch: int = 512
    flash_attention: str = "auto"
    kv_type: str = "f16"
    draft_tokens: int = 0
    draft_cost: float = 1.0

    def __post_init__(self) -> None:
        for name in ("threads", "prefill_threads", "batch"):
            self._require(name, "a positive whole number", type(getattr(self, name)) is int and getattr(self, name) > 0)
        self._require("flash_attention", " or ".join(FLASH_ATTENTION), self.flash_attention in FLASH_ATTENTION)
        self._require("kv_type", " or ".join(KV_TYPES), self.kv_type in KV_TYPES)
        most = self.batch - 1
        self._require("draft_tokens", f"0 to {most}", type(self.draft_tokens) is int and 0 <= self.draft_tokens <= most)
        number = type(self.draft_cost) in (int, float)
        self._require("draft_cost", "a number of at least 1", number and 1 <= self.draft_cost < 1000)
        cached = self.kv_type == "f16" or self.flash_attention != "off"
        self._require("kv_type", "f16 where flash attention is off", cached)

    def _require(self, name: str, expected: str, fits: bool) -> None:
        if not fits:
            raise InputError(f"{name}: expected {expected}, found {getattr(self, name)!r}")

    @property
    def drafting(self) -> Drafting | None:
        return Drafting(self.draft_tokens, self.draft_cost) if self.draft_tokens else None

    def __str__(self) -> str:
        threads = (
            f"{self.threads} threads"
            if self.threads == self.prefill_threads
            else (f"{self.threads} threads ({self.prefill_threads} for prompts)")
        )
        draft = f", {self.draft_tokens} tokens guessed ahead" if self.draft_tokens else ""
        return f"{threads}, batch {self.batch}, flash attention {self.flash_attention}, KV {self.kv_type}{draft}"


def tuning_for(digest: str) -> tuple[Tuning | None, tuple[str, ...]]:
    """What was found for a model of this SHA-256 on this machine, and a warning where that cannot be used."""
    path = _file()
    try:
        table = _tables(path).get(digest)
        if table is None:
            return None, ()
        table = dict(table)
        if (table.pop("cpu"), table.pop("hardware_threads")) != (cpu_name(), logical_cores()):
            return None, ()
        if unknown := set(table) - {field.name for field in fields(Tuning)}:
            raise InputError(f"unknown key {min(unknown)!r}")
        return Tuning(**table), ()
    except (InputError, KeyError, TypeError, ValueError, RecursionError, OSError) as e:
        return None, (f"{path}: expected what `sgft-edge bench --tune` writes, found otherwise ({e}): it is ignored",)


def keep(digest: str, tuning: Tuning) -> Path:
    """Write a tuning into the user's machine.toml; returns that file. Raises `InputError` or `SgftError`."""
    path = _file()
    try:
        with changing(path):
            try:
                tables = dict(_tables(path))
            except (InputError, ValueError, RecursionError, OSError):
                tables = {}
            tables[digest] = {"cpu": cpu_name(), "hardware_threads": logical_cores(), **asdict(tuning)}
            write_atomically(path, f"{_HEADER}\n{toml_tables('models', tables)}")
    except OSError as e:
        raise refusal(f"cannot write {path}", e) from e
    return path


def _file() -> Path:
    return config_folder() / "machine.toml"


def _tables(path: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("models", {})
    except FileNotFoundError:
        return {}
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise InputError("models is no table of tables")
    return tables
