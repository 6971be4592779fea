"""`sgft-edge doctor`: look over this installation and this machine, and say what to do about what is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sgft_edge.host.machine import MB
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import say

if TYPE_CHECKING:
    from sgft_edge.installation.advice import Advice
    from sgft_edge.installation.diagnosis import Report


Rows = Iterator[tuple[str, str]]


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv)


@click.command("doctor", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
def command(as_json: bool) -> int:
    """Look over this installation and this machine.

    Exits with status 1 where `sgft-edge solve` cannot work; advice on speed alone leaves it at 0.
    """
    from sgft_edge.installation.advice import advise
    from sgft_edge.installation.diagnosis import examine

    report = examine()
    advice = advise(report)
    broken = any(a.broken for a in advice)
    if as_json:
        say(json.dumps({**asdict(report), "advice": [asdict(a) for a in advice], "works": not broken}, indent=1))
    else:
        _print(report, advice)
    return int(broken)


def _print(report: Report, advice: list[Advice]) -> None:
    sections = (
        ("Versions", _versions(report)),
        ("Machine", _machine(report)),
        ("llama.cpp", _llama(report)),
        ("Models", _models(report)),
        ("Folders", _folders(report)),
    )
    for title, rows in sections:
        say(title, bold=True)
        for label, value in rows:
            say(f"  {label:<18} {value}")
        say()
    say("Advice", bold=True)
    for item in advice:
        say(f"  {'BROKEN' if item.broken else 'advice'}: {item.text}", fg="red" if item.broken else "yellow")
    if not advice:
        say("  all is well", fg="green")


def _versions(report: Report) -> Rows:
    if versions := report.versions:
        yield "python", versions.python
        yield "sgft-edge", versions.sgft_edge or "not installed"
        yield "llama-cpp-python", f"{versions.llama_cpp_python or 'not installed'} (needs {versions.binding_range})"
        yield "numpy", versions.numpy or "not installed"
    yield from _failed(report, "versions")


def _machine(report: Report) -> Rows:
    yield "system", report.system or "?"
    yield "cpu", report.cpu or "?"
    quota = "" if report.core_quota is None else f", time of {report.core_quota:g} granted"
    yield "cores", f"{report.physical_cores} physical, {report.logical_cores} logical{quota}"
    if memory := report.memory:
        available = "?" if memory.available is None else _megabytes(memory.available)
        yield "memory", f"{_megabytes(memory.total)}, {available} available"
        if memory.limit is not None:
            yield "memory limit", f"{_megabytes(memory.limit)}, {_megabytes(memory.limit_used or 0)} used"
    for gpu in report.gpus or ():
        yield "gpu", gpu
    yield from (report.openmp or {}).items()
    probes = ("system", "cpu", "cpu_features", "physical_cores", "logical_cores", "core_quota", "memory", "gpus")
    yield from _failed(report, *probes)


def _llama(report: Report) -> Rows:
    if llama := report.llama:
        yield "version", f"{llama.version} (ggml {llama.ggml_version or '?'}, commit {llama.commit or '?'})"
        yield "built with", " ".join(llama.flags)
        yield "gpu offload", "yes" if llama.gpu_offload else "no"
        yield "mmap", "yes" if llama.mmap else "no"
        for device in llama.devices:
            memory = f"{_megabytes(device.free_bytes)} free of {_megabytes(device.total_bytes)}"
            yield f"device {device.name}", f"{device.description}, {memory}"
    yield from _failed(report, "llama")


def _models(report: Report) -> Rows:
    if report.default is not None:
        yield "default", f"{report.default.name}" + (f" ({report.default.why})" if report.default.why else "")
    here = [model for model in report.models or () if model.path is not None]
    for model in here:
        yield model.name, f"verified: {model.verified}; {model.path}"
    if report.models is not None:
        yield "not here", f"{len(report.models) - len(here)} of {len(report.models)} known (sgft-edge models list)"
    for name, tuning in (report.tunings or {}).items():
        yield f"tuned {name}", tuning
    yield from _failed(report, "default", "models", "tunings")


def _folders(report: Report) -> Rows:
    for name, folder in (report.folders or {}).items():
        writable = "" if folder.writable else ", NOT writable"
        yield name, f"{folder.path} ({_megabytes(folder.free_bytes)} free{writable})"
    if report.package:
        yield "package", report.package
    yield from _failed(report, "folders", "package")


def _failed(report: Report, *probes: str) -> Rows:
    for name in probes:
        if why := report.failures.get(name):
            yield name, f"unknown: {why}"


def _megabytes(count: int) -> str:
    return f"{count / MB:,.0f} MB"


if __name__ == "__main__":
    sys.exit(main())
