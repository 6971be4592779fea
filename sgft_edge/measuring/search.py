"""`sgft-edge bench --tune`: find the settings under which a model runs fastest on this machine.

One setting after another is varied, each candidate measured in turn with the best so far, every run a process of its
own. A candidate wins by being faster in the median by more than `MARGIN` and in most of the pairs; so noise changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from sgft_edge.errors import ModelError
from sgft_edge.host.machine import logical_cores, physical_cores
from sgft_edge.llama.tuning import Tuning
from sgft_edge.measuring.compare import counting_prompt
from sgft_edge.measuring.measure import Job, measure_apart
from sgft_edge.measuring.probe import costs_apart
from sgft_edge.store.header import peek
from sgft_edge.store.manifest import Manifest
from sgft_edge.store.places import locate

MARGIN = 1.03
BATCHES = (128, 256, 512)

# What a decode call costs and brings where a text is guessed ahead, by tokens guessed at once: the share of tokens that
# are decoded without a guess, and calls with one, of all tokens. From chains of thought and guided answers of
# Qwen2.5-Coder-0.5B to 60 problems of GSM8K, the worse of the two: `python -m benchmarks.lookup`.
DRAFT_SHARES = {1: (0.303, 0.450), 2: (0.303, 0.367), 3: (0.301, 0.340), 4: (0.301, 0.321)}
DRAFTS = tuple(DRAFT_SHARES)
LEAST_GAIN = 1.1  # expected, below which guessing is left off


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds to read the prompt, and to decode after it."""

    prefill: float
    decode: float

    @property
    def total(self) -> float:
        return self.prefill + self.decode


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate against the best before it: the medians' ratio in speed, and whether it won."""

    setting: str
    value: Any
    speedup: float
    won: bool


Measure = Callable[[Tuning], Speed]
Goal = Callable[[Speed], float]


def prefill(speed: Speed) -> float:
    return speed.prefill


def decode(speed: Speed) -> float:
    return speed.decode


def total(speed: Speed) -> float:
    return speed.total


def settings_to_try(threads: Sequence[int]) -> list[tuple[str, Sequence[Any], Goal]]:
    """The settings in the order of their trial, with their candidates and what each is judged by."""
    return [
        ("threads", threads, decode),
        ("prefill_threads", threads, prefill),
        ("batch", BATCHES, prefill),
        ("flash_attention", ("on", "off"), total),
        ("kv_type", ("f16", "q8_0"), total),
    ]


def search(
    start: Tuning, measure: Measure, threads: Sequence[int], repeats: int, rounded_kv: bool = False
) -> tuple[Tuning, list[Trial]]:
    """The best settings, and every trial on the way. Without `rounded_kv` an 8-bit KV cache is tried but not taken."""
    best, trials = start, []
    for setting, candidates, goal in settings_to_try(threads):
        for value in candidates:
            if value == getattr(best, setting) or (setting == "kv_type" and best.flash_attention == "off"):
                continue
            candidate = replace(best, **{setting: value})
            speedup, won = _against(best, candidate, measure, goal, repeats)
            won = won and (rounded_kv or value != "q8_0")
            trials.append(Trial(setting, value, speedup, won))
            if won:
                best = candidate
    return best, trials


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best settings, all trials, the costs of guessing ahead with its expected speedup, and other quantizations.

    `others`: their speed under the best settings, in times of this model's, by name.
    """

    tuning: Tuning
    trials: Sequence[Trial]
    draft_costs: Mapping[int, float]
    draft_speedup: float
    others: Mapping[str, float]


def find_fastest(
    model: Path, repeats: int, tokens: tuple[int, int], rounded_kv: bool, advance: Callable[[], None] = lambda: None
) -> Tuned:
    """Search on a file, reading and decoding so many `tokens` in each run. Raises `InputError` or `EngineError`.

    `advance` is called after each of at most `most_runs` runs.
    """

    def measure(tuning: Tuning, path: Path = model) -> Speed:
        prompt, context = counting_prompt(path, tokens[0], sum(tokens) + 1)
        job = Job(
            contender="engine",
            model=str(path),
            prompt=prompt,
            decode_tokens=tokens[1],
            context=context,
            threads=tuning.threads,
            device="cpu",
            tuning=asdict(tuning),
        )
        run = measure_apart(job)
        advance()
        return Speed(run.first_token_s, run.decode_s)

    cores = physical_cores()
    best, trials = search(Tuning(cores, cores), measure, thread_counts(), repeats, rounded_kv)
    costs = costs_apart(model, best, DRAFTS)
    tokens_ahead, speedup = draft(costs)
    if tokens_ahead:
        best = replace(best, draft_tokens=tokens_ahead, draft_cost=round(costs[tokens_ahead], 3))
    others = {
        name: median(measure(best).total / measure(best, path).total for _ in range(repeats))
        for name, path in same_model(model).items()
    }
    return Tuned(best, trials, costs, speedup, others)


def most_runs(model: Path, repeats: int) -> int:
    """Runs that `find_fastest` makes at most."""
    candidates = sum(len(values) for _, values, _ in settings_to_try(thread_counts()))
    return 2 * repeats * (candidates + len(same_model(model)))


def thread_counts() -> tuple[int, ...]:
    """Powers of two up to the hardware threads, these, and the physical cores."""
    most = logical_cores()
    return tuple(sorted({physical_cores(), most, *(1 << n for n in range(most.bit_length()))}))


def same_model(model: Path) -> dict[str, Path]:
    """Other files on this machine that call themselves by the same name: other quantizations, most likely."""
    name = peek(model, "general.name")
    found = {}
    for entry in Manifest.load().entries.values() if name else ():
        path = locate(entry) if entry.role == "model" else None
        with suppress(ModelError):
            if path is not None and not path.samefile(model) and peek(path, "general.name") == name:
                found[entry.name] = path
    return found


def _against(best: Tuning, candidate: Tuning, measure: Measure, goal: Goal, repeats: int) -> tuple[float, bool]:
    pairs = []
    for n in range(repeats):
        order = (best, candidate) if n % 2 == 0 else (candidate, best)
        found = {tuning: goal(measure(tuning)) for tuning in order}
        pairs.append((found[best], found[candidate]))
    speedup = median(before / after for before, after in pairs)
    return speedup, speedup > MARGIN and 2 * sum(after < before for before, after in pairs) > repeats


def draft(costs: Mapping[int, float]) -> tuple[int, float]:
    """How many tokens to guess ahead, and the speedup that it should bring; 0 where it does not pay.

    `costs`: the time of a batch with so many guessed tokens, in times of one without.
    """
    gains = {k: 1 / (alone + with_guess * costs[k]) for k, (alone, with_guess) in DRAFT_SHARES.items() if k in costs}
    best = max(gains, key=gains.__getitem__, default=0)
    return (best, gains[best]) if best and gains[best] >= LEAST_GAIN else (0, gains.get(best, 1.0))
