"""`sgft-edge bench`: our engine against llama-cpp-python's `Llama` on one model file.

Each run is a process of its own (`sgft_edge.measure`), one at a time, in the order A B, B A, A B, ...: idle threads
of one contender cannot disturb the other, peak memory is its own, and where memory happens to be laid out well or
badly, that is drawn anew for each run instead of once for all. Loading and a warm-up are not timed.

The prompt counts "1, 2, 3, ...": models go on counting when they decode greedily, so that none ends its text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click

from sgft_edge.child import run_child
from sgft_edge.default import choose_default
from sgft_edge.errors import ContextOverflow, InputError
from sgft_edge.machine import cpu_name, physical_cores
from sgft_edge.measure import CONTENDERS, Job, Measurement
from sgft_edge.progress import progress
from sgft_edge.settings import DEVICES
from sgft_edge.store import file_digest, resolve


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
    limits = {"repeats": (repeats, 1), "prompt-tokens": (prompt_tokens, 1), "decode-tokens": (decode_tokens, 2)}
    for name, (value, least) in {**limits, "threads": (threads, 1)}.items():
        if value < least:
            raise InputError(f"{name}: expected at least {least}, found {value}")
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
            measurements.append(Measurement(**run_child("sgft_edge.measure", asdict(job))))
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
    from sgft_edge.binding import Model

    model = Model(path)
    try:
        text = ", ".join(map(str, range(1, tokens + 1)))  # a number takes one token at least
        ids = ([model.bos] if model.add_bos else []) + model.tokenize(text)
        return tuple(ids[:tokens]), min(context, model.n_ctx_train)
    finally:
        model.close()


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    from sgft_edge.cli import run

    return run(command, argv)


@click.command("bench", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", "name", metavar="MODEL", help="Name or GGUF file.  [default: as for solve]")
@click.option("--repeats", default=5, show_default=True, metavar="N", help="Runs of each contender.")
@click.option("--prompt-tokens", default=256, show_default=True, metavar="N")
@click.option("--decode-tokens", default=64, show_default=True, metavar="N")
@click.option("--context", default=2048, show_default=True, metavar="TOKENS", help="Size of the KV cache.")
@click.option("--threads", type=int, metavar="N", help="CPU threads.  [default: the physical cores]")
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print all single measurements as JSON.")
@click.option("--tune", "tuned", is_flag=True, help="Find the fastest settings for this machine, and keep them.")
@click.option("--allow-q8-kv", is_flag=True, help="With --tune: a KV cache of 8 bits may win, which changes results.")
def command(name: str | None, repeats: int, as_json: bool, tuned: bool, allow_q8_kv: bool, **given: Any) -> None:
    """Measure speed and memory on this machine.

    Prefill, decoding, time to the first token and peak memory of the engine that solves questions, beside those of
    llama-cpp-python's `Llama` on the same file. Other work on the machine spoils the figures.

    With --tune: try threads, batch sizes, flash attention, types of the KV cache and guessing ahead, compare other
    quantizations of the model that are at hand, and keep what is fastest; from then on it is used wherever --threads
    is not given.
    """
    model = resolve(name or choose_default().name)
    if tuned:
        _tune(model, repeats, (given["prompt_tokens"], given["decode_tokens"]), allow_q8_kv)
        return
    with progress("runs", 2 * max(repeats, 1)) as advance:
        comparison = compare(model, repeats=repeats, advance=advance, **given)
    if as_json:
        click.echo(json.dumps(comparison.to_dict(), indent=1))
    else:
        _print(comparison)


def _tune(model: Path, repeats: int, tokens: tuple[int, int], rounded_kv: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from sgft_edge.tune import most_runs, tune
    from sgft_edge.tuning import keep

    if min(repeats, tokens[0], tokens[1] - 1) < 1:
        raise InputError("--tune: expected at least 1 repeat, 1 prompt token and 2 decoded tokens")
    with progress("runs", most_runs(model, repeats)) as advance:
        found = tune(model, repeats, tokens, rounded_kv, advance)
    table = Table(box=None, pad_edge=False)
    for title in ("SETTING", "TRIED", "SPEED", ""):
        table.add_column(title, justify="right" if title == "SPEED" else "left")
    for trial in found.trials:
        setting = trial.setting.replace("_", " ")
        table.add_row(setting, str(trial.value), f"{trial.speedup:.2f}x", "taken" if trial.won else "")
    for tokens_ahead, cost in found.draft_costs.items():
        taken = "taken" if tokens_ahead == found.tuning.draft_tokens else ""
        table.add_row("tokens guessed ahead", str(tokens_ahead), f"a batch costs {cost:.2f}x", taken)
    for name, speed in found.others.items():
        table.add_row("quantization", name, f"{speed:.2f}x", "")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(f"best: {found.tuning}\nkept in {keep(file_digest(model), found.tuning)}", markup=False)


def _print(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    ours, theirs = (comparison.medians(contender) for contender in CONTENDERS)
    ratio = comparison.ratio()
    table = Table(box=None, pad_edge=False)
    for title in ("MEDIAN", "ENGINE", "LLAMA", "ENGINE/LLAMA"):
        table.add_column(title, justify="left" if title == "MEDIAN" else "right")
    for label, figure, digits in (
        ("prefill, tokens/s", "prefill_rate", 1),
        ("decode, tokens/s", "decode_rate", 1),
        ("first token, s", "first_token_s", 3),
        ("peak memory, MB", "peak_mb", 0),
    ):
        values = (getattr(figures, figure) for figures in (ours, theirs))
        table.add_row(label, *(f"{value:.{digits}f}" for value in values), f"{getattr(ratio, figure):.2f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(_circumstances(comparison), style="dim", soft_wrap=True, markup=False)


def _circumstances(comparison: Comparison) -> str:
    first, runs = comparison.measurements[0], len(comparison.measurements) // 2
    texts = "the same text in all runs" if comparison.same_text else "texts that differ"
    return (
        f"{comparison.cpu}, {comparison.threads} threads, {first.device}; {comparison.model} "
        f"sha256 {comparison.sha256[:12]}; {first.prompt_tokens} prompt and {first.decoded_tokens} decoded tokens, "
        f"context {comparison.context}, {runs} runs each, {texts}"
    )


if __name__ == "__main__":
    sys.exit(main())
