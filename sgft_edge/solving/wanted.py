"""The models and adapters that were asked for, found before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgft_edge.errors import InputError
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.settings import DEFAULT_CONTEXT, MOST_CONTEXT, MOST_PARALLEL, MOST_THREADS
from sgft_edge.solving.adapters import Adapters, Name, choose_adapters
from sgft_edge.solving.default import choose_default
from sgft_edge.solving.endpoint import is_endpoint
from sgft_edge.store.digests import file_digest
from sgft_edge.store.manifest import Entry, Manifest
from sgft_edge.store.places import entry_for, resolve


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What `Solver.open` is asked for. Raises `InputError` for a number out of its bounds."""

    guide: Name | None = None
    answerer: Name | None = None
    adapter: Name = "auto"
    answerer_adapter: Name = "auto"
    plan: str = "auto"
    context: int = DEFAULT_CONTEXT
    parallel: int = 1
    threads: int | None = None
    device: str = "auto"
    require_gpu: bool = False
    max_memory: int | None = None

    def __post_init__(self) -> None:
        if self.max_memory is not None and self.max_memory < 1:
            raise InputError(f"max-memory: expected at least 1, found {self.max_memory}")
        for name, value, most in (
            ("context", self.context, MOST_CONTEXT),
            ("parallel", self.parallel, MOST_PARALLEL),
            ("threads", self.threads, MOST_THREADS),
        ):
            if value is not None and not 1 <= value <= most:
                raise InputError(f"{name}: expected from 1 to {most}, found {value}")


@dataclass(frozen=True, kw_only=True)
class Found:
    """The files behind what is wanted: a model's name and file by role, no file for an endpoint; and the adapters.

    `plan` is first or stepwise.
    """

    names: Mapping[str, Name]
    files: Mapping[str, Path]
    one_model: bool
    adapters: Adapters
    plan: str
    entry: Entry | None  # the answerer's
    named_adapters: bool

    @property
    def models(self) -> dict[str, str]:
        """By the parts of a solution's report, the files' names."""
        models = {role: self.files[role].name if role in self.files else str(name) for role, name in self.names.items()}
        return models | {part: file.path.name for part, file in self.adapters.by_name.items()}

    def digests(self) -> dict[str, str]:
        """By the same parts, the files' SHA-256; an endpoint stands with its name."""
        digests = {
            role: file_digest(self.files[role]) if role in self.files else str(name)
            for role, name in self.names.items()
        }
        return digests | {part: file_digest(file.path) for part, file in self.adapters.by_name.items()}

    @property
    def sequences(self) -> int:
        """How many one question needs of a model: two where both roles follow every step with weights of their own."""
        if not self.one_model or self.plan != "stepwise":
            return 1
        used = [self.adapters.by_task(role).get(prompts.EXECUTE) for role in ("guide", "answerer")]
        apart = len({file and file.path.resolve() for file in used}) > 1
        return 2 if apart or not self.files else 1

    @property
    def loaded(self) -> dict[Path, Sequence[Path]]:
        """The model files that are opened, each with the adapters that are loaded onto it."""
        seats = {"guide": ("guide", "answerer")} if self.one_model else {role: (role,) for role in self.files}
        return {
            self.files[seat]: [file.path for role in roles for file in self.adapters.by_task(role).values()]
            for seat, roles in seats.items()
            if seat in self.files
        }

    @property
    def strategy(self) -> str | None:
        """What adapters that somebody named were trained for; else what was measured, or what those at hand are for."""
        measured, trained = self.entry.auto if self.entry else None, self.adapters.strategy
        return trained or measured if self.named_adapters else measured or trained


def look_up(wanted: Wanted, known: Manifest) -> Found:
    """Find what is wanted. Raises `InputError`, `ModelError`, and `ModelMissing` with the command that fetches it."""
    guide = wanted.guide if wanted.guide is not None else choose_default(wanted.max_memory, wanted.context, known).name
    names = {"guide": guide, "answerer": guide if wanted.answerer is None else wanted.answerer}
    files = {role: resolve(name, known) for role, name in names.items() if not is_endpoint(name)}
    one = files["guide"].samefile(files["answerer"]) if len(files) == 2 else names["guide"] == names["answerer"]
    asked = {"guide": wanted.adapter, "answerer": wanted.answerer_adapter}
    for role, adapter in asked.items():
        if role not in files and adapter not in ("auto", "none"):
            raise InputError(f"expected no adapter for {names[role]}, an endpoint has its own, found {adapter}")
    adapters = choose_adapters(guide, asked["guide"], names["answerer"], asked["answerer"], known, one_model=one)
    trained = adapters.guide.plan if adapters.guide else "first"
    return Found(
        names=names,
        files=files,
        one_model=one,
        adapters=adapters,
        plan=trained if wanted.plan == "auto" else wanted.plan,
        entry=entry_for(names["answerer"], known),
        named_adapters=not set(asked.values()) <= {"auto", "none"},
    )
