"""The devices that this build of llama.cpp can compute on, and the choice among them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from sgft_edge.errors import InputError
from sgft_edge.reasoning.settings import DEVICES

_PREFIX = {"cuda": ("CUDA", "ROCm"), "metal": ("Metal", "MTL"), "vulkan": ("Vulkan",)}
_GPU_TYPES = {1, 2}  # GGML_BACKEND_DEVICE_TYPE_GPU and _IGPU in ggml-backend.h


@dataclass(frozen=True, slots=True)
class Hardware:
    """One device as ggml reports it; memory in bytes."""

    name: str
    description: str
    is_gpu: bool
    free_bytes: int
    total_bytes: int
    handle: int


@dataclass(frozen=True, slots=True)
class Device:
    """What a model is loaded onto: a name for reports, and ggml's handles (none for the CPU alone)."""

    name: str
    handles: tuple[int, ...] = ()

    @property
    def is_gpu(self) -> bool:
        return bool(self.handles)


def hardware() -> list[Hardware]:
    """All devices of this build, in ggml's order."""
    from llama_cpp._ggml import libggml as ggml

    from sgft_edge.llama.library import start_backend

    start_backend()
    for function, result in (
        ("ggml_backend_dev_get", ctypes.c_void_p),
        ("ggml_backend_dev_name", ctypes.c_char_p),
        ("ggml_backend_dev_description", ctypes.c_char_p),
        ("ggml_backend_dev_count", ctypes.c_size_t),
        ("ggml_backend_dev_type", ctypes.c_int),
    ):
        getattr(ggml, function).restype = result
    found = []
    for i in range(ggml.ggml_backend_dev_count()):
        handle = ggml.ggml_backend_dev_get(ctypes.c_size_t(i))
        pointer = ctypes.c_void_p(handle)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        ggml.ggml_backend_dev_memory(pointer, ctypes.byref(free), ctypes.byref(total))
        found.append(
            Hardware(
                ggml.ggml_backend_dev_name(pointer).decode(),
                ggml.ggml_backend_dev_description(pointer).decode(),
                ggml.ggml_backend_dev_type(pointer) in _GPU_TYPES,
                free.value,
                total.value,
                handle,
            )
        )
    return found


def choose(wanted: str = "auto", require_gpu: bool = False) -> Device:
    """The device to load onto. Raises `InputError` for one that this build or machine lacks."""
    if wanted not in DEVICES:
        raise InputError(f"device: expected one of {', '.join(DEVICES)}, found {wanted!r}")
    if wanted == "cpu" and require_gpu:
        raise InputError("--require-gpu and --device cpu contradict each other: leave one of them out")
    gpus = [] if wanted == "cpu" else [h for h in hardware() if h.is_gpu]
    if wanted != "auto":
        gpus = [h for h in gpus if h.name.startswith(_PREFIX.get(wanted, ()))]
    if not gpus and (require_gpu or wanted not in ("auto", "cpu")):
        what = "GPU" if wanted == "auto" else f"{wanted} device"
        raise InputError(
            f"no {what} was found by this build of llama.cpp (see `sgft-edge doctor`): "
            "install a build of llama-cpp-python for it, or use --device cpu"
        )
    return Device(gpus[0].name, (gpus[0].handle,)) if gpus else Device("CPU")
