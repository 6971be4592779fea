"""Model files tried out in a process of their own: llama.cpp ends its process on some damaged files, or takes for ever.

`python -m sgft_edge.llama.model_trial` reads a list of steps and opens each as the engine does, within bounds. Its
first line says which llama.cpp it is, and one more follows each step: null, or the error's kind and message. Where
llama.cpp ends the process, the step without a line is the one that did it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sgft_edge.errors import EngineError, SgftError
from sgft_edge.host.child import Ended, signal_name, watch_child
from sgft_edge.host.machine import physical_cores

if TYPE_CHECKING:
    from sgft_edge.llama.engine import Engine

_TEXT = "Anna has 12 apples, gives 3 away and asks:\n\t“What is left?” ½ ÷ 日本 <|im_start|> 🙂"
_GRAMMAR = "root ::= [0-9]+"
_WINDOW = 256  # tokens
_THREADS = 16  # at most: the stack of each counts as memory
_TOKENS = 6  # of the text's beginning and of its end: a large model reads them in seconds
_START_S = 60.0  # for Python and llama.cpp, on a machine that has little time for them
_LASTING = {"SIGABRT", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGXCPU"}  # what a file does each time


@dataclass(frozen=True, slots=True)
class Step:
    """A model to open, or an adapter on it, within so many bytes of memory and seconds of the processor."""

    model: str
    adapter: str | None
    memory: int
    seconds: int

    @property
    def file(self) -> str:
        return self.adapter or self.model


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a file: the name of an error, or "" where the process ended; `lasting` if it will be again."""

    kind: str
    reason: str
    lasting: bool = True


def outcomes(steps: Sequence[Step]) -> Iterator[tuple[str, Fault | None]]:
    """For each step which llama.cpp tried it, and what is wrong.

    Raises `EngineError` where llama.cpp cannot be loaded.
    """
    left = list(steps)
    while left:
        patience = _START_S + 3 * sum(step.seconds for step in left)
        done = watch_child(__name__, [asdict(step) for step in left], patience, _environment())
        lines = done.output.split("\n")[:-1]  # a line without its end was not finished
        if not lines:
            raise EngineError(_unable(done))
        library = str(json.loads(lines[0]))
        for step, line in zip(left, lines[1:], strict=False):
            found = json.loads(line)
            yield library, found and Fault(found[0], _reason(found[1], step))
        left = left[len(lines) - 1 :]
        if left:
            yield library, _fatal(done, left.pop(0))


def _environment() -> dict[str, str]:
    """No debugger on llama.cpp's way out; and modules are found where this process finds them."""
    return {"GGML_NO_BACKTRACE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def _unable(done: Ended) -> str:
    name = signal_name(-done.status) if done.status is not None and done.status < 0 else ""
    said = [line.strip() for line in done.errors.splitlines() if line.strip()]
    why = name or (said[-1] if said else "it gave no reason")
    return f"llama.cpp does not load to try a file: {why}: run `sgft-edge doctor`, or set SGFT_EDGE_TRIAL=off"


def _reason(message: str, step: Step) -> str:
    """An error's message without the file, which may have another name next time, and without advice on options."""
    return message.removeprefix(f"{step.file}: ").removesuffix(": lower --context or --parallel")


def _fatal(done: Ended, step: Step) -> Fault:
    if done.status is None:
        return Fault("", f"llama.cpp did not open it within {_START_S + 3 * step.seconds:g} s", lasting=False)
    if done.status >= 0:
        said = [line.strip() for line in done.errors.splitlines() if line.strip()]
        return Fault("", said[-1] if said else f"the process that tried it ended with status {done.status}", False)
    name = signal_name(-done.status)
    if name == "SIGXCPU":
        return Fault("", f"llama.cpp did not open it within {step.seconds} s of processor time")
    said = re.findall(r"GGML_ASSERT\(.*\)(?= failed)|what\(\): .+|terminate called .+", done.errors)
    told = next((line for line in said if line.startswith("GGML")), said[-1] if said else _last_word(done.errors))
    memory = f"expected it to need at most {step.memory >> 20} MiB beside the file" if "bad_alloc" in told else ""
    return Fault("", ": ".join(filter(None, (f"llama.cpp ended with {name}", told, memory))), name in _LASTING)


def _last_word(errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def _answers(steps: Sequence[Step]) -> Iterator[list[str] | None]:
    """What each step comes to; a model that was opened stays open for the adapters that follow."""
    from sgft_edge.llama.engine import Engine

    engine: Engine | None = None
    opened = ""
    for step in steps:
        _bound_this_process(step)
        try:
            if engine is None or step.adapter is None or step.model != opened:
                if engine is not None:
                    engine.close()
                engine = None
                engine = Engine(Path(step.model), window=_WINDOW, threads=min(physical_cores(), _THREADS))
                opened = step.model
            _use(engine, None if step.adapter is None else Path(step.adapter))
            yield None
        except SgftError as e:
            yield [type(e).__name__, str(e)]
        except MemoryError:
            yield ["EngineError", f"expected it to need at most {step.memory >> 20} MiB beside the file"]
    if engine is not None:
        engine.close()


def _use(engine: Engine, adapter: Path | None) -> None:
    """All that the engine does with a file: its vocabulary, decoding under its weights, a grammar, a saved state."""
    from sgft_edge.reasoning.backend import Usage

    model = engine.model
    weights = None if adapter is None else engine.adapter(adapter)
    if weights is None:
        for token in range(model.n_vocab):
            model.piece(token, keep=False)
            model.is_control(token)
            model.token_text(token)
        model.end_tokens()
        _ = model.chat_template, model.token_text(model.bos), model.eos_text
    else:
        weights.metadata("sgft.role")
    tokens = [*model.tokenize_document(_TEXT)[:_TOKENS], *model.tokenize(_TEXT, special=True)[-_TOKENS:]]
    sequence = engine.acquire()
    try:
        for grammar in (None, _GRAMMAR):
            sequence.begin(tokens or [0], weights, Usage())
            engine.submit(sequence.complete(1, grammar=grammar))
            while engine.busy:
                for request in engine.step():
                    if request.error is not None and grammar is None:
                        raise request.error
        engine.context.save(sequence.slot)
    except SgftError:
        sequence.close()
        raise
    sequence.close()


def _bound_this_process(step: Step) -> None:
    """Bounds that end a process which exceeds them; they count from now. Systems without them have the timeout."""
    try:
        import resource
    except ImportError:  # Windows
        return

    def lower(limit: int, most: int) -> None:
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))

    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        lower(resource.RLIMIT_CPU, int(time.process_time()) + 1 + step.seconds)
        pages = int(Path("/proc/self/statm").read_text().split()[5])  # private and writable, so without mapped weights
        lower(resource.RLIMIT_DATA, pages * resource.getpagesize() + step.memory)


def main() -> int:
    """Try the steps on stdin."""
    from sgft_edge.llama.library import fingerprint

    steps = [Step(**step) for step in json.load(sys.stdin)]
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)  # what libraries print is no answer
        for line in itertools.chain([fingerprint()], _answers(steps)):
            print(json.dumps(line), file=output, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
