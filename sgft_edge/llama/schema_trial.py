"""A JSON schema tried out in a process of its own, so that one that takes for ever, or all memory, hurts nobody.

`python -m sgft_edge.llama.schema_trial` reads a schema's text and writes what is wrong with it, null for nothing.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from sgft_edge.errors import EngineError, InputError
from sgft_edge.host.child import run_child
from sgft_edge.reasoning.schema import JsonSchema

_PROCESSOR_SECONDS = 2
_MEMORY = 1 << 30
_PATIENCE = 60.0  # seconds, on a machine that has little time for it
_BYTES = 200  # of a text that is written along the schema


@lru_cache(256)
def try_out(schema: JsonSchema) -> None:
    """Raise `InputError` for a schema that cannot be held, or not within 2 seconds and 1 GiB."""
    try:
        wrong = run_child(__name__, schema.text, _PATIENCE)
    except EngineError as e:
        limits = f"{_PROCESSOR_SECONDS} seconds and {_MEMORY >> 20} MiB"
        raise InputError(f"schema: expected one that compiles within {limits}, found one that does not") from e
    if wrong is not None:
        raise InputError(wrong)


def _wrong_with(schema: JsonSchema) -> str | None:
    """The reason why a schema cannot be held, found by compiling it and writing a random text along it."""
    import llguidance

    from sgft_edge.llama.matching import compiled

    tokenizer = llguidance.LLTokenizer("byte")
    try:
        matcher = compiled(tokenizer, schema)
    except InputError as e:
        return str(e)
    rng = np.random.default_rng(0)
    bits = np.zeros((tokenizer.vocab_size + 31) // 32, np.uint32)
    for _ in range(_BYTES):
        if matcher.is_stopped():
            break
        matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        fit = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
        if not len(fit) or not matcher.consume_token(int(rng.choice(fit))):
            break
    if matcher.is_error() or not (matcher.is_accepting() or matcher.stop_reason() == "NotStopped"):
        return "schema: expected one that texts can fit, found one that none does, or that is too large"
    return None


def _bound_this_process() -> None:
    try:
        import resource
    except ImportError:  # Windows: there the caller's patience is the only bound
        return
    resource.setrlimit(resource.RLIMIT_CPU, (_PROCESSOR_SECONDS, _PROCESSOR_SECONDS))
    with suppress(OSError):  # no /proc: macOS, which knows no such limit either
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory = pages * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _bound_this_process()
    json.dump(_wrong_with(JsonSchema(json.load(sys.stdin))), sys.stdout)
