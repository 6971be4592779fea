"""How the installed llama.cpp was built, and the devices that it finds.

Asked in a process of its own, `python -m sgft_edge.llama.build`: a build for another CPU, or a driver that fails,
ends the process that loads it.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from dataclasses import asdict, dataclass
from typing import Any

from sgft_edge.host.child import run_child
from sgft_edge.llama.device import hardware

_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class BuildDevice:
    """A device that this build can compute on; memory in bytes, 0 where the driver does not tell."""

    name: str
    description: str
    is_gpu: bool
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class LlamaBuild:
    """llama.cpp as llama-cpp-python brings it; `flags` are its features, such as AVX2, NEON, OPENMP."""

    version: str
    ggml_version: str | None
    commit: str | None
    flags: tuple[str, ...]
    gpu_offload: bool
    mmap: bool
    devices: tuple[BuildDevice, ...]


def inspect() -> LlamaBuild:
    """Ask a child process. Raises `EngineError` where llama.cpp cannot be loaded."""
    answer = run_child(__name__, timeout_s=_TIMEOUT_S)
    devices = tuple(BuildDevice(**device) for device in answer["devices"])
    return LlamaBuild(**{**answer, "flags": tuple(answer["flags"]), "devices": devices})


def main() -> int:
    """Print this process's `LlamaBuild` as JSON."""
    json.dump(asdict(_loaded_build()), sys.stdout)
    return 0


def _loaded_build() -> LlamaBuild:
    import llama_cpp.llama_cpp as c
    from llama_cpp._ggml import libggml as ggml

    devices = [BuildDevice(h.name, h.description, h.is_gpu, h.free_bytes, h.total_bytes) for h in hardware()]
    return LlamaBuild(
        version=c.llama_version().decode(),
        ggml_version=_constant(ggml, "ggml_version"),
        commit=_constant(ggml, "ggml_commit"),
        flags=parse_flags(c.llama_print_system_info().decode()),
        gpu_offload=bool(c.llama_supports_gpu_offload()),
        mmap=bool(c.llama_supports_mmap()),
        devices=tuple(devices),
    )


def parse_flags(system_info: str) -> tuple[str, ...]:
    """Names that are on in llama.cpp's "CPU : SSE3 = 1 | AVX2 = 0 | ...", those that have another value with it."""
    found = re.findall(r"(\w+) = ([^\s|]+)", system_info)
    return tuple(name if value == "1" else f"{name}={value}" for name, value in found if value != "0")


def _constant(library: Any, name: str) -> str | None:
    """What a function without arguments returns as text, None where this release lacks it."""
    function = getattr(library, name, None)
    if function is None:
        return None
    function.restype = ctypes.c_char_p
    return str(function().decode())


if __name__ == "__main__":
    sys.exit(main())
