"""Who plays guide and answerer: files found, models loaded, the adapter checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from sgft_edge import prompts
from sgft_edge.binding import Adapter
from sgft_edge.device import choose, physical_cores
from sgft_edge.engine import Engine
from sgft_edge.errors import EngineError, InputError
from sgft_edge.manifest import Manifest
from sgft_edge.role import Role, template_of
from sgft_edge.store import entry_for, file_digest, locate, resolve

PROMPTS_KEY = "sgft.prompts_digest"  # metadata of an adapter: the prompts that it was trained with

Name = str | PathLike[str]


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The two roles with their engines, and what a report says about them: names and SHA-256 by role."""

    guide: Role
    answerer: Role
    models: Mapping[str, str]
    digests: Mapping[str, str]
    device: str
    offloaded_layers: int
    auto: str | None
    warnings: tuple[str, ...]

    @property
    def engines(self) -> list[Engine]:
        return list(dict.fromkeys((self.guide.engine, self.answerer.engine)))

    def sequences(self, stepwise: bool) -> dict[Engine, int]:
        """Sequences that one question needs on each engine.

        Roles of one engine take turns on one sequence, unless both follow every step with weights of their own.
        """
        apart = stepwise and not self.guide.shares_weights_with(self.answerer)
        return {engine: 2 if apart and len(self.engines) == 1 else 1 for engine in self.engines}

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


def open_cast(
    guide: Name,
    answerer: Name | None,
    adapter: Name,
    *,
    stepwise: bool,
    context: int,
    parallel: int,
    threads: int | None,
    device: str,
    require_gpu: bool,
) -> Cast:
    """Load what `Solver.open` names, with room for `parallel` questions; nothing stays open where that fails."""
    for name, value in (("context", context), ("parallel", parallel), ("threads", threads or 1)):
        if value < 1:
            raise InputError(f"{name}: expected at least 1, found {value}")
    answerer = guide if answerer is None else answerer
    files = {"guide": resolve(guide), "answerer": resolve(answerer)}
    one_file = files["guide"].samefile(files["answerer"])
    adapter_file = _adapter_file(adapter, guide)
    if adapter_file is not None:
        files["adapter"] = adapter_file
    where = choose(device, require_gpu)
    slots = parallel * (2 if stepwise and one_file and adapter_file is not None else 1)
    opened: list[Engine] = []
    try:
        for path in [files["guide"]] if one_file else [files["guide"], files["answerer"]]:
            opened.append(Engine(path, slots=slots, window=context, threads=threads or physical_cores(), device=where))
        offloaded = sum(engine.model.offloaded_layers for engine in opened)
        if require_gpu and not offloaded:
            raise EngineError(f"--require-gpu: no layer was offloaded to {where.name}: use --device cpu or a GPU build")
        loaded = opened[0].adapter(adapter_file) if adapter_file is not None else None
        templates = [template_of(engine.model) for engine in opened]
        answerer_entry = entry_for(answerer)
        return Cast(
            guide=Role("guide", opened[0], loaded, templates[0]),
            answerer=Role("answerer", opened[-1], None, templates[-1]),
            models={role: path.name for role, path in files.items()},
            digests={**{role: file_digest(path) for role, path in files.items()}, "prompts": prompts.digest()},
            device=where.name,
            offloaded_layers=offloaded,
            auto="exact" if loaded else (answerer_entry.auto if answerer_entry else None),
            warnings=_warnings(loaded),
        )
    except BaseException:
        for engine in opened:
            engine.close()
        raise


def _adapter_file(adapter: Name, guide: Name) -> Path | None:
    """The adapter that was named; for "auto" the one that the manifest has for the guide, if it is on this machine."""
    if adapter == "none":
        return None
    if adapter != "auto":
        return resolve(adapter)
    base = entry_for(guide)
    entries = Manifest.load().entries.values() if base else ()
    fitting = (locate(entry) for entry in entries if base and entry.role == "adapter" and entry.base == base.name)
    return next((path for path in fitting if path is not None), None)


def _warnings(adapter: Adapter | None) -> tuple[str, ...]:
    if adapter is None:
        return ()
    trained_with = adapter.metadata(PROMPTS_KEY)
    if trained_with == prompts.guide_digest():
        return ()
    found = f"with others ({trained_with[:12]})" if trained_with else "without saying with which"
    return (
        f"{adapter.path.name}: expected an adapter trained with these prompts ({prompts.guide_digest()[:12]}), "
        f"found one trained {found}: its guidance may be worse",
    )
