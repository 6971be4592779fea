"""Our engine against llama-cpp-python's `Llama` on one model file.

Each run is a process of its own (measure.py), one at a time, in the order A B, B A, A B, ...: idle threads
of one contender cannot disturb the other, peak memory is its own, and where memory happens to be laid out well or
badly, that is drawn anew for each run instead of once for all. Loading and a warm-up are not timed.

The prompt counts "1, 2, 3, ...": models go on counting when they decode greedily, so that none ends its text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from sgft_edge.errors import ContextOverflow, InputError
from sgft_edge.host.machine import cpu_name, physical_cores
from sgft_edge.measuring.measure import CONTENDERS, Job, Measurement, measure_apart
from sgft_edge.reasoning.settings import MOST_CONTEXT, MOST_THREADS
from sgft_edge.solving.strangers import try_out
from sgft_edge.store.digests import file_digest


@dataclass(frozen=True, slots=True)
class Figures:
    """Tokens a second for reading the prompt and for decoding, seconds to the first token, MB of peak memory."""

    prefill_rate: float
    decode_rate: float
    first_token_s: float
    peak_mb: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """All measurements in the order of their making, and what they were made with; `context` is in tokens."""

    cpu: str
    threads: int
    model: str
    sha256: str
    context: int
    measurements: tuple[Measurement, ...]

    def medians(self, contender: str) -> Figures:
        """Each figure's median over the contender's runs."""
        runs = [m for m in self.measurements if m.contender == contender]
        return Figures(
            median(m.prefill_rate for m in runs),
            median(m.decode_rate for m in runs),
            median(m.first_token_s for m in runs),
            median(m.peak_mb for m in runs),
        )

    def ratio(self) -> Figures:
        """The engine's medians by `Llama`'s."""
        ours, theirs = (asdict(self.medians(contender)) for contender in CONTENDERS)
        return Figures(**{name: ours[name] / theirs[name] for name in ours})

    @property
    def same_text(self) -> bool:
        """Whether all runs decoded the same text, bytes that are no UTF-8 left out: `Llama` drops them."""
        return len({m.text.replace("\N{REPLACEMENT CHARACTER}", "") for m in self.measurements}) == 1

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        medians = {contender: asdict(self.medians(contender)) for contender in CONTENDERS}
        return {**asdict(self), "medians": medians, "ratio": asdict(self.ratio()), "same_text": self.same_text}


def compare(
    model: Path,
    *,
    repeats: int = 5,
    prompt_tokens: int = 256,
    decode_tokens: int = 64,
    context: int = 2048,
    threads: int | None = None,
    device: str = "auto",
    advance: Callable[[], None] = lambda: None,
) -> Comparison:
    """Measure both contenders `repeats` times; `advance` is called after each of the 2 * `repeats` runs.

    `threads` defaults to the physical cores. Raises `InputError`, `ModelError`, or `EngineError` for a run that failed
    or did not decode all tokens.
    """
    threads = physical_cores() if threads is None else threads
    for name, value, least, most in (
        ("repeats", repeats, 1, MOST_CONTEXT),
        ("prompt-tokens", prompt_tokens, 1, MOST_CONTEXT),
        ("decode-tokens", decode_tokens, 2, MOST_CONTEXT),
        ("context", context, 1, MOST_CONTEXT),
        ("threads", threads, 1, MOST_THREADS),
    ):
        if not least <= value <= most:
            raise InputError(f"{name}: expected from {least} to {most}, found {value}")
    prompt, context = counting_prompt(model, prompt_tokens, context)
    if prompt_tokens + decode_tokens >= context:  # `Llama` keeps one token free
        raise ContextOverflow(prompt_tokens + decode_tokens + 1, context)
    measurements = []
    for repeat in range(repeats):
        for contender in CONTENDERS if repeat % 2 == 0 else reversed(CONTENDERS):
            job = Job(
                contender=contender,
                model=str(model),
                prompt=prompt,
                decode_tokens=decode_tokens,
                context=context,
                threads=threads,
                device=device,
            )
            measurements.append(measure_apart(job))
            advance()
    return Comparison(
        cpu=cpu_name(),
        threads=threads,
        model=model.name,
        sha256=file_digest(model),
        context=context,
        measurements=tuple(measurements),
    )


def counting_prompt(path: Path, tokens: int, context: int) -> tuple[tuple[int, ...], int]:
    """A prompt of that many tokens, and the context as far as the model was trained for it."""
    from sgft_edge.llama.model import Model

    try_out({path: ()})
    model = Model(path)
    try:
        text = ", ".join(map(str, range(1, tokens + 1)))  # a number takes one token at least
        ids = ([model.bos] if model.add_bos else []) + model.tokenize(text)
        return tuple(ids[:tokens]), min(context, model.n_ctx_train)
    finally:
        model.close()
