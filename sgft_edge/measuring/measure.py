"""One contender on one prompt, in this process: as a module it reads a `Job` and writes a `Measurement`.

Both contenders read the same token ids into an empty KV cache and decode the same number of tokens greedily, with the
same context, batch, threads, device and flash attention. "engine" is our `Engine` with one slot, "llama"
is llama-cpp-python's `Llama.create_completion`, whose own prefix cache `reset` empties.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sgft_edge.errors import EngineError, SgftError
from sgft_edge.host.child import run_child
from sgft_edge.host.machine import MB, peak_bytes
from sgft_edge.llama.device import choose, hardware
from sgft_edge.llama.tuning import Tuning

CONTENDERS = ("engine", "llama")

_WARM_UP_TOKENS = 2  # a prompt and a step: weights into memory, graphs reserved, threads started


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to measure; `prompt` holds token ids, `context` is in tokens, `model` a path.

    `tuning` are the engine's settings as `tuning.Tuning` takes them; without them it has `threads` alone.
    """

    contender: str
    model: str
    prompt: tuple[int, ...]
    decode_tokens: int
    context: int
    threads: int
    device: str
    tuning: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One run. Seconds to the first token and from there to the finished text; MB (10**6 bytes) at the process's peak.

    `text` shows that both contenders did the same work.
    """

    contender: str
    device: str
    prompt_tokens: int
    decoded_tokens: int
    first_token_s: float
    decode_s: float
    peak_mb: float
    text: str

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens a second, the first token's sampling included."""
        return self.prompt_tokens / self.first_token_s

    @property
    def decode_rate(self) -> float:
        """Tokens a second after the first."""
        return (self.decoded_tokens - 1) / self.decode_s


@dataclass(frozen=True, slots=True)
class _Run:
    first_token_s: float
    decode_s: float
    tokens: int
    text: str


_Complete = Callable[[int], _Run]  # decodes that many tokens after the prompt


def main() -> int:
    """Measure the job on standard input; what goes wrong is the last line of stderr."""
    try:
        job = Job(**json.load(sys.stdin))
        json.dump(asdict(measure(job)), sys.stdout)
    except SgftError as e:
        print(e, file=sys.stderr)
        return e.exit_status
    return 0


def measure_apart(job: Job) -> Measurement:
    """Measure in a process of its own. Raises `EngineError` with what went wrong there."""
    return Measurement(**run_child(__name__, asdict(job)))


def measure(job: Job) -> Measurement:
    """Load the model, warm up, measure once.

    Raises `EngineError` where the text has fewer tokens, or more: rates over other numbers could not be compared.
    """
    complete = {"engine": _engine, "llama": _llama}[job.contender](job)
    complete(_WARM_UP_TOKENS)
    run = complete(job.decode_tokens)
    if run.tokens != job.decode_tokens:
        raise EngineError(_not_as_many(job, run.tokens))
    return Measurement(
        contender=job.contender,
        device=choose(job.device).name,
        prompt_tokens=len(job.prompt),
        decoded_tokens=run.tokens,
        first_token_s=run.first_token_s,
        decode_s=run.decode_s,
        peak_mb=peak_bytes() / MB,
        text=run.text,
    )


def _not_as_many(job: Job, tokens: int) -> str:
    counts = f"{job.contender} decoded {tokens} of {job.decode_tokens} tokens"
    if tokens > job.decode_tokens:  # `Llama` goes on until its text is whole
        return f"{counts}: the text would end within a character: pass --decode-tokens {tokens}"
    return f"{counts}, there the model ends its text: pass --decode-tokens {max(tokens, 2)} or other --prompt-tokens"


def _engine(job: Job) -> _Complete:
    from sgft_edge.llama.engine import Engine
    from sgft_edge.reasoning.backend import Usage

    tuning = Tuning(**job.tuning) if job.tuning is not None else Tuning(job.threads, job.threads)
    engine = Engine(Path(job.model), window=job.context, device=choose(job.device), tuning=tuning)

    def complete(tokens: int) -> _Run:
        sequence = engine.acquire()
        began = time.perf_counter()
        sequence.begin(list(job.prompt), None, Usage(), reserve=tokens)
        request = sequence.complete(tokens)
        engine.submit(request)
        while engine.busy and not sequence.usage.decoded:
            engine.step()
        first = time.perf_counter()
        while engine.busy:
            engine.step()
        ended = time.perf_counter()
        sequence.close()
        engine.forget()
        if request.result is None:
            raise request.error or EngineError("the engine gave no completion")
        decoded = request.result.tokens - (request.result.finish == "end")
        return _Run(first - began, ended - first, decoded, request.result.text)

    return complete


def _llama(job: Job) -> _Complete:
    import llama_cpp

    device = choose(job.device)
    gpus = [found.name for found in hardware() if found.is_gpu] if device.is_gpu else []
    llama = llama_cpp.Llama(
        job.model,
        n_ctx=job.context,
        n_batch=512,
        n_ubatch=512,
        n_threads=job.threads,
        n_threads_batch=job.threads,
        n_gpu_layers=-1 if device.is_gpu else 0,
        split_mode=llama_cpp.LLAMA_SPLIT_MODE_NONE,
        main_gpu=gpus.index(device.name) if device.is_gpu else 0,
        offload_kqv=device.is_gpu,
        op_offload=device.is_gpu,
        flash_attn=True,  # llama.cpp turns it on for the engine, which leaves the choice to it
        logits_all=False,
        no_perf=True,
        verbose=False,
    )

    def complete(tokens: int) -> _Run:
        sampled: list[float] = []  # a criterion is called after each token: the only place to see the first one

        def note_time(ids: object, logits: object) -> bool:
            sampled.append(time.perf_counter())
            return False

        llama.reset()
        began = time.perf_counter()
        reply = llama.create_completion(
            list(job.prompt),
            max_tokens=tokens,
            temperature=0.0,
            stopping_criteria=llama_cpp.StoppingCriteriaList([note_time]),
        )
        ended = time.perf_counter()
        text = reply["choices"][0]["text"]
        return _Run(sampled[0] - began, ended - sampled[0], reply["usage"]["completion_tokens"], text)

    return complete


if __name__ == "__main__":
    sys.exit(main())
