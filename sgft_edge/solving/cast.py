"""Who plays guide and answerer: files found, models loaded, the adapter checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sgft_edge.errors import EngineError, InputError
from sgft_edge.host.machine import physical_cores
from sgft_edge.llama.device import Device, choose
from sgft_edge.llama.engine import Engine
from sgft_edge.llama.prefixes import PrefixStore
from sgft_edge.llama.role import LocalRole
from sgft_edge.llama.tokens import template_of
from sgft_edge.llama.tuning import Tuning, tuning_for
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.backend import Backend, Role
from sgft_edge.solving.adapters import PROMPTS_KEY, AdapterFile, Chosen, Name, choose_adapters
from sgft_edge.solving.budget import Need, within
from sgft_edge.solving.default import choose_default
from sgft_edge.solving.endpoint import Endpoint, RemoteRole, is_endpoint
from sgft_edge.store.digests import file_digest
from sgft_edge.store.manifest import Entry, Manifest
from sgft_edge.store.places import entry_for, resolve


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The two roles with their engines, and what a report says about them: names and SHA-256 by role.

    An endpoint stands with its name in place of a digest.
    `plan` is how the guide plans for strategy `exact` where nothing else is asked for. `need` is the memory that was
    estimated before anything was loaded, none of it for endpoints.
    """

    guide: Role
    answerer: Role
    plan: str
    models: Mapping[str, str]
    digests: Mapping[str, str]
    device: str
    offloaded_layers: int
    auto: str | None
    auto_choices: str | None
    need: Need
    warnings: tuple[str, ...]

    @property
    def engines(self) -> list[Backend]:
        return list(dict.fromkeys((self.guide.engine, self.answerer.engine)))

    def sequences(self, stepwise: bool) -> dict[Backend, int]:
        """Sequences that one question needs on each engine.

        Roles of one engine take turns on one sequence, unless both follow every step with weights of their own.
        """
        apart = stepwise and not self.guide.shares_weights_with(self.answerer, prompts.EXECUTE)
        return {engine: 2 if apart and len(self.engines) == 1 else 1 for engine in self.engines}

    def close(self) -> None:
        for engine in self.engines:
            engine.close()


def open_cast(
    guide: Name | None,
    answerer: Name | None,
    adapter: Name,
    answerer_adapter: Name,
    *,
    plan: str,
    context: int,
    parallel: int,
    threads: int | None,
    device: str,
    require_gpu: bool,
    max_memory: int | None = None,
) -> Cast:
    """Load what `Solver.open` names, with room for `parallel` questions; nothing stays open where that fails."""
    counts = {"context": context, "parallel": parallel, "threads": threads or 1}
    if max_memory is not None:
        counts["max-memory"] = max_memory
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name}: expected at least 1, found {value}")
    known = Manifest.load()
    if guide is None:
        guide = choose_default(max_memory, context, known).name
    names = {"guide": guide, "answerer": guide if answerer is None else answerer}
    files = {role: resolve(name, known) for role, name in names.items() if not is_endpoint(name)}
    one = files["guide"].samefile(files["answerer"]) if len(files) == 2 else names["guide"] == names["answerer"]
    for role, wanted in (("guide", adapter), ("answerer", answerer_adapter)):
        if role not in files and wanted not in ("auto", "none"):
            raise InputError(f"expected no adapter for {names[role]}, an endpoint has its own, found {wanted}")
    chosen = choose_adapters(guide, adapter, names["answerer"], answerer_adapter, known, one_model=one)
    models = {role: files[role].name if role in files else str(name) for role, name in names.items()}
    digests = {role: file_digest(files[role]) if role in files else str(name) for role, name in names.items()}
    for part, found in chosen.by_name.items():
        models[part], digests[part] = found.path.name, file_digest(found.path)
    if plan == "auto":
        plan = chosen.guide.plan if chosen.guide else "first"
    where = choose(device, require_gpu)
    sequences = 2 if one and plan == "stepwise" and (not files or _apart(chosen)) else 1
    cut = within(
        _files_with_adapters(files, chosen, one),
        parallel,
        context,
        known,
        sequences=sequences,
        limit=max_memory,
        on_gpu=where.is_gpu,
    )
    slots = cut.parallel * sequences
    opened: list[Backend] = []
    warnings = cut.warnings
    try:
        for role in ("guide",) if one else ("guide", "answerer"):
            if role not in files:
                opened.append(Endpoint(str(names[role]), slots))
                continue
            tuning, doubts = _tuning(digests[role], threads, where)
            warnings += doubts
            kind = (
                f"{slots} slots, batch {tuning.batch}, threads {tuning.threads} and {tuning.prefill_threads}, "
                f"KV {tuning.kv_type}, flash attention {tuning.flash_attention}"
            )
            opened.append(
                Engine(
                    files[role],
                    slots=slots,
                    window=cut.context,
                    device=where,
                    prefixes=PrefixStore((digests[role], where.name, kind)),
                    tuning=tuning,
                )
            )
        offloaded = sum(engine.model.offloaded_layers for engine in opened if isinstance(engine, Engine))
        if require_gpu and not offloaded:
            raise EngineError(f"--require-gpu: no layer was offloaded to {where.name}: use --device cpu or a GPU build")
        roles = {"guide": _role("guide", opened[0], chosen), "answerer": _role("answerer", opened[-1], chosen)}
        entry = entry_for(names["answerer"], known)
        return Cast(
            guide=roles["guide"],
            answerer=roles["answerer"],
            plan=plan,
            models=models,
            digests={**digests, "prompts": prompts.digest()},
            device=where.name if files else "endpoint",
            offloaded_layers=offloaded,
            auto=_strategy(chosen, entry, named=not {adapter, answerer_adapter} <= {"auto", "none"}),
            auto_choices=entry.auto_choices if entry else None,
            need=cut.need,
            warnings=(*dict.fromkeys(warnings), *_warnings(roles.values(), chosen), *_unused(chosen.guide, plan)),
        )
    except BaseException:
        for backend in opened:
            backend.close()
        raise


def _tuning(digest: str, threads: int | None, device: Device) -> tuple[Tuning, tuple[str, ...]]:
    """What was found best for a model on this machine's CPU, unless the caller says how many threads; with warnings."""
    found, warnings = (None, ()) if threads is not None or device.is_gpu else tuning_for(digest)
    cores = threads or physical_cores()
    return found or Tuning(cores, cores), warnings


def _files_with_adapters(files: Mapping[str, Path], chosen: Chosen, one: bool) -> dict[Path, Sequence[Path]]:
    """The model files that are opened, each with the adapters that are loaded onto it."""
    seats = {"guide": ("guide", "answerer")} if one else {role: (role,) for role in files}
    return {
        files[seat]: [file.path for role in roles for file in chosen.by_task(role).values()]
        for seat, roles in seats.items()
        if seat in files
    }


def _role(name: str, engine: Backend, chosen: Chosen) -> Role:
    if isinstance(engine, Endpoint):
        return RemoteRole(name, engine)
    assert isinstance(engine, Engine)
    adapters = {task: engine.adapter(file.path) for task, file in chosen.by_task(name).items()}
    return LocalRole(name, engine, template_of(engine.model), adapters)


def _apart(chosen: Chosen) -> bool:
    """Whether the roles of one model execute a guidance with weights of their own."""
    used = [chosen.by_task(role).get(prompts.EXECUTE) for role in ("guide", "answerer")]
    return len({file and file.path.resolve() for file in used}) > 1


def _strategy(chosen: Chosen, entry: Entry | None, named: bool) -> str | None:
    """What adapters that somebody named were trained for; else what was measured, or what those at hand are for."""
    measured = entry.auto if entry else None
    return chosen.strategy or measured if named else measured or chosen.strategy


def _warnings(roles: Iterable[Role], chosen: Chosen) -> tuple[str, ...]:
    files = {found.path: found for found in chosen.by_name.values()}
    local = (role for role in roles if isinstance(role, LocalRole))
    loaded = {adapter.path: adapter for role in local for adapter in role.adapters.values()}
    warnings = []
    for path, adapter in loaded.items():
        trained_with, expected = adapter.metadata(PROMPTS_KEY), files[path].prompts_digest
        if trained_with != expected:
            found = f"with others ({trained_with[:12]})" if trained_with else "without saying with which"
            warnings.append(
                f"{path.name}: expected an adapter trained with these prompts ({expected[:12]}), found one trained "
                f"{found}: what it writes may be worse"
            )
    return tuple(warnings)


def _unused(guides: AdapterFile | None, plan: str) -> tuple[str, ...]:
    """A word to those who ask for a plan that the guide's adapter was not trained to write."""
    needed = prompts.EXECUTE if plan == "stepwise" else prompts.GUIDE
    if guides is None or needed in guides.tasks("guide"):
        return ()
    return (f"{guides.path.name}: trained as {'+'.join(guides.trained_for)}, so it is off for plan {plan}",)
