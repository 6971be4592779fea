"""What `sgft-edge doctor` finds out about this installation and this machine.

Nothing here raises: a probe that fails leaves None in the report, and its reason under `failures`.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from sgft_edge.errors import ModelError
from sgft_edge.host import files, machine
from sgft_edge.host.machine import Memory
from sgft_edge.llama import build
from sgft_edge.llama.build import LlamaBuild
from sgft_edge.llama.tuning import tuning_for
from sgft_edge.solving.default import Default, choose_default
from sgft_edge.store import digests, places
from sgft_edge.store.manifest import Entry, Manifest, package_models
from sgft_edge.store.places import ModelState

T = TypeVar("T")

BINDING = "llama-cpp-python"


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Installed releases; `binding_range` is the one of llama-cpp-python that sgft-edge asks for."""

    python: str
    sgft_edge: str | None
    llama_cpp_python: str | None
    numpy: str | None
    binding_range: str | None


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder of the user's; `free_bytes` are those of its disk."""

    path: str
    writable: bool
    free_bytes: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """All findings. Cores are those that this process may use, `core_quota` is CPU time in cores.

    `default` is the model that answers where none is named, `default_model` what is known of it. `tunings` tell how
    models run that `sgft-edge bench --tune` was run for.
    """

    versions: Versions | None
    system: str | None
    cpu: str | None
    cpu_features: tuple[str, ...] | None
    physical_cores: int | None
    logical_cores: int | None
    core_quota: float | None
    memory: Memory | None
    gpus: tuple[str, ...] | None
    openmp: Mapping[str, str] | None
    llama: LlamaBuild | None
    default: Default | None
    default_model: Entry | None
    models: tuple[ModelState, ...] | None
    tunings: Mapping[str, str] | None
    folders: Mapping[str, Folder] | None
    package: str | None
    failures: Mapping[str, str]


def examine() -> Report:
    """Run all probes."""
    failures: dict[str, str] = {}

    def probe(name: str, look: Callable[[], T]) -> T | None:
        try:
            return look()
        except Exception as e:  # noqa: BLE001 - whatever is broken is what a doctor is called for
            failures[name] = " ".join(str(e).split()) or type(e).__name__
            return None

    default = probe("default", choose_default)
    return Report(
        versions=probe("versions", _versions),
        system=probe("system", platform.platform),
        cpu=probe("cpu", machine.cpu_name),
        cpu_features=probe("cpu_features", machine.cpu_features),
        physical_cores=probe("physical_cores", machine.physical_cores),
        logical_cores=probe("logical_cores", machine.logical_cores),
        core_quota=probe("core_quota", machine.core_quota),
        memory=probe("memory", machine.memory),
        gpus=probe("gpus", machine.gpus),
        openmp=probe("openmp", lambda: {k: v for k, v in os.environ.items() if k.startswith("OMP_")}),
        llama=probe("llama", build.inspect),
        default=default,
        default_model=Manifest.load().get(default.name) if default is not None else None,
        models=probe("models", lambda: tuple(map(places.state, Manifest.load().entries.values()))),
        tunings=probe("tunings", _tunings),
        folders=probe("folders", _folders),
        package=probe("package", lambda: str(package_models())),
        failures=failures,
    )


def _versions() -> Versions:
    try:
        required = metadata.requires("sgft-edge") or []
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        required = []
    return Versions(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        sgft_edge=_version("sgft-edge"),
        llama_cpp_python=_version(BINDING),
        numpy=_version("numpy"),
        binding_range=next((r.removeprefix(BINDING) for r in required if r.startswith(BINDING)), None),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _tunings() -> dict[str, str]:
    found = {}
    for entry in Manifest.load().entries.values():
        path = places.locate(entry) if entry.role == "model" else None
        if path is not None:
            try:
                tuning, warnings = tuning_for(digests.file_digest(path))
            except ModelError as e:  # a split model lacks a part
                tuning, warnings = None, (str(e),)
            if tuning is not None or warnings:
                found[entry.name] = str(tuning) if tuning is not None else warnings[0]
    return found


def _folders() -> dict[str, Folder]:
    paths = {"models": files.models_folder(), "config": files.config_folder(), "cache": files.cache_folder()}
    return {name: _folder(path) for name, path in paths.items()}


def _folder(path: Path) -> Folder:
    """A folder that need not exist yet: then the nearest above it counts."""
    place = next(place for place in (path, *path.parents) if os.path.lexists(place))
    writable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    existing = next(place for place in (path, *path.parents) if place.exists())
    return Folder(path=str(path), writable=writable, free_bytes=shutil.disk_usage(existing).free)
