"""Who plays guide and answerer: files found, models loaded, the adapter checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sgft_edge.errors import EngineError
from sgft_edge.host.machine import physical_cores
from sgft_edge.llama.device import Device, choose
from sgft_edge.llama.engine import Engine
from sgft_edge.llama.prefixes import PrefixStore
from sgft_edge.llama.role import LocalRole
from sgft_edge.llama.tokens import template_of
from sgft_edge.llama.tuning import Tuning, tuning_for
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.backend import Backend, Role
from sgft_edge.solving.adapters import PROMPTS_KEY, AdapterFile, Adapters
from sgft_edge.solving.budget import Fit, Need, within
from sgft_edge.solving.endpoint import Endpoint, RemoteRole
from sgft_edge.solving.strangers import try_out
from sgft_edge.solving.wanted import Found, Wanted, look_up
from sgft_edge.store.manifest import Manifest


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


def open_cast(wanted: Wanted) -> Cast:
    """Find, fit and load what is wanted; nothing stays open where that fails."""
    known = Manifest.load()
    found = look_up(wanted, known)
    device = choose(wanted.device, wanted.require_gpu)
    fit = within(
        found.loaded,
        wanted.parallel,
        wanted.context,
        known,
        sequences=found.sequences,
        limit=wanted.max_memory,
        on_gpu=device.is_gpu,
    )
    try_out(found.loaded, known)
    with ExitStack() as opened:
        return _opened(wanted, found, fit, device, opened)


def _opened(wanted: Wanted, found: Found, fit: Fit, device: Device, opened: ExitStack) -> Cast:
    digests, warnings = found.digests(), list(fit.warnings)
    backends: list[Backend] = []
    for role in ("guide",) if found.one_model else ("guide", "answerer"):
        if role in found.files:
            tuning, doubts = _tuning(digests[role], wanted.threads, device)
            warnings += doubts
            backend: Backend = _engine(found.files[role], digests[role], fit, found.sequences, device, tuning)
        else:
            backend = Endpoint(str(found.names[role]), fit.parallel * found.sequences)
        opened.callback(backend.close)
        backends.append(backend)
    offloaded = sum(backend.model.offloaded_layers for backend in backends if isinstance(backend, Engine))
    if wanted.require_gpu and not offloaded:
        raise EngineError(f"--require-gpu: no layer was offloaded to {device.name}: use --device cpu or a GPU build")
    roles = [_role(name, at, found.adapters) for name, at in (("guide", backends[0]), ("answerer", backends[-1]))]
    warnings += [*_warnings(roles, found.adapters), *_unused(found.adapters.guide, found.plan)]
    cast = Cast(
        guide=roles[0],
        answerer=roles[1],
        plan=found.plan,
        models=found.models,
        digests={**digests, "prompts": prompts.digest()},
        device=device.name if found.files else "endpoint",
        offloaded_layers=offloaded,
        auto=found.strategy,
        auto_choices=found.entry.auto_choices if found.entry else None,
        need=fit.need,
        warnings=tuple(dict.fromkeys(warnings)),
    )
    opened.pop_all()  # the cast closes them
    return cast


def _engine(path: Path, digest: str, fit: Fit, sequences: int, device: Device, tuning: Tuning) -> Engine:
    slots = fit.parallel * sequences
    kind = (
        f"{slots} slots, batch {tuning.batch}, threads {tuning.threads} and {tuning.prefill_threads}, "
        f"KV {tuning.kv_type}, flash attention {tuning.flash_attention}"
    )
    store = PrefixStore((digest, device.name, kind))
    return Engine(path, slots=slots, window=fit.context, device=device, prefixes=store, tuning=tuning)


def _tuning(digest: str, threads: int | None, device: Device) -> tuple[Tuning, tuple[str, ...]]:
    """What was found best for a model on this machine's CPU, unless the caller says how many threads; with warnings."""
    found, warnings = (None, ()) if threads is not None or device.is_gpu else tuning_for(digest)
    cores = threads or physical_cores()
    return found or Tuning(cores, cores), warnings


def _role(name: str, engine: Backend, adapters: Adapters) -> Role:
    if isinstance(engine, Endpoint):
        return RemoteRole(name, engine)
    assert isinstance(engine, Engine)
    on = {task: engine.adapter(file.path) for task, file in adapters.by_task(name).items()}
    return LocalRole(name, engine, template_of(engine.model), on)


def _warnings(roles: Iterable[Role], adapters: Adapters) -> tuple[str, ...]:
    files = {found.path: found for found in adapters.by_name.values()}
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
