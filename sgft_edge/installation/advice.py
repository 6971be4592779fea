"""What to do about what a diagnosis found wrong: one line for each."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sgft_edge.host.machine import MB
from sgft_edge.installation.diagnosis import BINDING, Report
from sgft_edge.reasoning.settings import DEFAULT_MODEL, FALLBACK_MODEL
from sgft_edge.store.places import ModelState

_BUILD_FLAGS = {"avx2": "AVX2", "fma": "FMA", "asimd": "NEON", "asimddp": "DOTPROD"}  # Linux's names: llama.cpp's
_GPU_OPTIONS = {"AMD GPU": "-DGGML_HIP=on", "Apple GPU": "-DGGML_METAL=on"}


@dataclass(frozen=True, slots=True)
class Advice:
    """What is wrong and what to do; `broken` where `sgft-edge solve` cannot work before that is done."""

    text: str
    broken: bool = False


def advise(report: Report) -> list[Advice]:
    """All advice, what is broken first."""
    found = [advice for check in _CHECKS for advice in check(report)]
    return sorted(found, key=lambda advice: not advice.broken)


def _llama(report: Report) -> Iterator[Advice]:
    if why := report.failures.get("llama"):
        yield Advice(f"llama.cpp does not load ({why}): run {_reinstall(report)}", broken=True)


def _binding_version(report: Report) -> Iterator[Advice]:
    versions = report.versions
    if versions and versions.llama_cpp_python and versions.binding_range:
        installed, allowed = versions.llama_cpp_python, versions.binding_range
        if not in_range(installed, allowed):
            yield Advice(f"{BINDING} {installed} is not in the supported range {allowed}: run {_reinstall(report)}")


def _models(report: Report) -> Iterator[Advice]:
    if why := report.failures.get("models"):
        yield Advice(f"the known models cannot be read: {why}", broken=True)
    elif why := report.failures.get("default"):
        yield Advice(why, broken=True)
    for model in report.models or ():
        if model.path is not None and model.verified in ("NO", "unreadable"):
            is_default = report.default is not None and model.name == report.default.name
            yield Advice(_mend(report, model, model.path), broken=is_default)


def _better_model(report: Report) -> Iterator[Advice]:
    state = _absent_default(report)
    if state is not None and report.default is not None and report.default.name == FALLBACK_MODEL:
        yield Advice(f"{report.default}: it answers better")


def _absent_default(report: Report) -> ModelState | None:
    """The plain default, where it is not on this machine."""
    return next((m for m in report.models or () if m.name == DEFAULT_MODEL and m.path is None), None)


def _mend(report: Report, model: ModelState, path: str) -> str:
    if model.verified == "unreadable":
        return f"{model.name}: {path} cannot be read: change its permissions"
    damaged = f"{model.name}: {path} is damaged, its sha256 is not the expected one"
    if report.package and Path(path).is_relative_to(report.package):
        return f"{damaged}: reinstall sgft-edge"
    if report.folders and Path(path).is_relative_to(report.folders["models"].path):
        return f"{damaged}: run `sgft-edge models pull {model.name}`"
    return f"{damaged}: put the right file there, or trust it with `sgft-edge models add {model.name} {path} --force`"


def _gpu(report: Report) -> Iterator[Advice]:
    if not report.gpus or report.llama is None or any(device.is_gpu for device in report.llama.devices):
        return
    gpu = report.gpus[0]
    if report.llama.gpu_offload:
        yield Advice(f"{gpu}: this build of llama.cpp can use GPUs but found none: check the GPU's driver")
    else:
        option = _GPU_OPTIONS.get(gpu, "-DGGML_CUDA=on")
        yield Advice(f"{gpu}: this build of llama.cpp cannot use it: run {_reinstall(report, option)}")


def _cpu_flags(report: Report) -> Iterator[Advice]:
    if report.llama is None or not report.llama.flags:
        return
    built = {flag.partition("=")[0] for flag in report.llama.flags}
    if missing := [b for cpu, b in _BUILD_FLAGS.items() if cpu in (report.cpu_features or ()) and b not in built]:
        yield Advice(
            f"this CPU has {', '.join(missing)}, llama.cpp was built without: "
            f"for more speed run {_reinstall(report, '-DGGML_NATIVE=on')}"
        )


def _memory(report: Report) -> Iterator[Advice]:
    if report.memory is None or report.default_model is None or report.default_model.memory_mb is None:
        return
    need, name = report.default_model.memory_mb, report.default_model.name
    most, free = report.memory.most // MB, report.memory.free // MB
    smaller = "use a smaller model (--guide)" if name == FALLBACK_MODEL else f"use {FALLBACK_MODEL} (--guide)"
    what = f"the default model {name} needs about {need} MB of memory"
    if most < need:
        limited = report.memory.limit is not None and report.memory.limit < report.memory.total
        mend = "raise the control group's limit" if limited else smaller
        yield Advice(f"{what}, this process can have at most {most}: {mend}", broken=True)
    elif free < need:
        yield Advice(f"{what}, {free} are free: end other programs or {smaller}")


def _cores(report: Report) -> Iterator[Advice]:
    quota, cores = report.core_quota, report.physical_cores
    if quota is not None and cores is not None and quota < cores:
        yield Advice(
            f"the control group grants the time of {quota:g} cores, llama.cpp's threads would wait for each other "
            f"on {cores}: pass --threads {max(int(quota), 1)}"
        )


def _openmp(report: Report) -> Iterator[Advice]:
    variables, cores = report.openmp or {}, report.physical_cores or 1
    threads = variables.get("OMP_NUM_THREADS")
    if threads is not None and not re.fullmatch(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*", threads):
        yield Advice(f"OMP_NUM_THREADS={threads!r} is no number of threads: unset it")
    elif threads is not None and int(threads.partition(",")[0]) != cores:
        yield Advice(
            f"OMP_NUM_THREADS={threads} does not set llama.cpp's threads, {cores} unless told otherwise: pass --threads"
        )
    limit = variables.get("OMP_THREAD_LIMIT", "")
    if limit.isdigit() and 0 < int(limit) < cores:
        yield Advice(f"OMP_THREAD_LIMIT={limit} holds llama.cpp to {limit} of {cores} cores: unset it")
    if variables.get("OMP_DYNAMIC", "").lower() == "true":
        yield Advice("OMP_DYNAMIC=true takes threads from llama.cpp while the machine is busy: unset it")


def _folders(report: Report) -> Iterator[Advice]:
    for name, folder in (report.folders or {}).items():
        if not folder.writable:
            variable = f"SGFT_EDGE_{name.upper()}"
            yield Advice(f"the {name} folder {folder.path} cannot be written to: set {variable} to another folder")


def _disk(report: Report) -> Iterator[Advice]:
    state = _absent_default(report)
    if state is None or state.bytes is None or report.folders is None:
        return
    folder, need = report.folders["models"], state.bytes + state.bytes // 5  # the file, and a wheel with a part of it
    if folder.free_bytes < need:
        yield Advice(
            f"pulling {state.name} takes {need // MB} MB, {folder.path} has {folder.free_bytes // MB} MB free: "
            "free some, or set SGFT_EDGE_MODELS to another folder"
        )


_CHECKS = (
    _llama,
    _binding_version,
    _models,
    _better_model,
    _memory,
    _gpu,
    _cpu_flags,
    _cores,
    _openmp,
    _folders,
    _disk,
)


def in_range(version: str, allowed: str) -> bool:
    """Whether a release is in a range such as "<0.4,>=0.3.36"; clauses other than these two kinds are not looked at."""
    clauses = re.findall(r"(>=|<(?!=))\s*([\d.]+)", allowed)
    return all(_release(version) >= _release(v) if op == ">=" else _release(version) < _release(v) for op, v in clauses)


def _release(version: str) -> tuple[int, ...]:
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, numbers[0].split("."))) if numbers else ()


def _reinstall(report: Report, cmake_option: str | None = None) -> str:
    """The command that installs a supported llama-cpp-python, built on this machine."""
    allowed = report.versions.binding_range if report.versions else None
    environment = f'CMAKE_ARGS="{cmake_option} -DLLAVA_BUILD=OFF" ' if cmake_option else ""
    return (
        f"`{environment}{sys.executable} -m pip install --force-reinstall --no-deps --no-cache-dir "
        f"--no-binary {BINDING} '{BINDING}{allowed or ''}'`"
    )
