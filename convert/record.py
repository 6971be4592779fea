"""`training.json`, which a training leaves beside its adapter: what it learned from, how, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from convert.errors import ConversionError
from sgft_edge.host.files import write_atomically

RECORD = "training.json"


@dataclass(frozen=True, slots=True)
class TrainedBase:
    """The base model of a training; `kind` is the form of its weights, the digests are SHA-256."""

    name: str
    architecture: str
    kind: str
    digest: str
    tokenizer_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """The facts of a training.

    `data` says how many examples there were, and of which files. `settings` are those of `train.sgft`, the adapter's
    `role` among them. `metrics` are the last ones, empty before the end.
    """

    base: TrainedBase
    data: Mapping[str, Any]
    processes: int
    prompts_digest: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """What the adapter was trained as, several roles joined by "+"."""
        role: str = self.settings["role"]
        return role

    def write(self, folder: Path) -> None:
        """Write the record into an adapter's folder. Raises `OSError`."""
        write_atomically(folder / RECORD, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> TrainingRecord | None:
        """The record in an adapter's folder, None where there is none. Raises `ConversionError` for a damaged one.

        What a newer version has recorded besides is left out.
        """
        path = folder / RECORD
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as e:
            raise ConversionError(f"{path}: expected the record of a training as JSON: {e}") from e
        if not isinstance(table, dict):
            raise ConversionError(f"{path}: expected a JSON object, found {type(table).__name__}")

        def value(table: Mapping[str, Any], name: str, kind: type, words: str, where: str = "") -> Any:
            if not isinstance(found := table.get(name), kind):
                shown = "none" if name not in table else repr(found)[:40]
                raise ConversionError(
                    f"{path}: expected {words} as {where}{name}, found {shown}: delete the file to go on without it"
                )
            return found

        base = value(table, "base", dict, "an object")
        settings = value(table, "settings", dict, "an object")
        value(settings, "role", str, "a text", "settings.")
        return cls(
            base=TrainedBase(*(value(base, known.name, str, "a text", "base.") for known in fields(TrainedBase))),
            data=value(table, "data", dict, "an object"),
            processes=value(table, "processes", int, "a whole number"),
            prompts_digest=value(table, "prompts_digest", str, "a text"),
            settings=settings,
            versions=value(table, "versions", dict, "an object"),
            metrics=value(table, "metrics", dict, "an object"),
        )
