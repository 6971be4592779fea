"""`sgft-edge bench`: the engine's speed and memory beside llama-cpp-python's, or the fastest settings for a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgft_edge.errors import InputError
from sgft_edge.reasoning.settings import DEVICES
from sgft_edge.solving.default import choose_default
from sgft_edge.store.digests import file_digest
from sgft_edge.store.places import resolve
from sgft_edge.terminal import words
from sgft_edge.terminal.progress import progress
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import say

if TYPE_CHECKING:
    from sgft_edge.measuring.compare import Comparison


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv)


@click.command("bench", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--model", "name", type=words.models, metavar="MODEL", help="Name or GGUF file.  [default: as for solve]")
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
    from sgft_edge.measuring.compare import compare

    with progress("runs", 2 * max(repeats, 1)) as advance:
        comparison = compare(model, repeats=repeats, advance=advance, **given)
    if as_json:
        say(json.dumps(comparison.to_dict(), indent=1))
    else:
        _print(comparison)


def _tune(model: Path, repeats: int, tokens: tuple[int, int], rounded_kv: bool) -> None:
    from rich.table import Table

    from sgft_edge.llama.tuning import keep
    from sgft_edge.measuring.search import find_fastest, most_runs
    from sgft_edge.terminal.display import PlainConsole

    if min(repeats, tokens[0], tokens[1] - 1) < 1:
        raise InputError("--tune: expected at least 1 repeat, 1 prompt token and 2 decoded tokens")
    with progress("runs", most_runs(model, repeats)) as advance:
        tuned = find_fastest(model, repeats, tokens, rounded_kv, advance)
    table = Table(box=None, pad_edge=False)
    for title in ("SETTING", "TRIED", "SPEED", ""):
        table.add_column(title, justify="right" if title == "SPEED" else "left")
    for trial in tuned.trials:
        setting = trial.setting.replace("_", " ")
        table.add_row(setting, str(trial.value), f"{trial.speedup:.2f}x", "taken" if trial.won else "")
    for tokens_ahead, cost in tuned.draft_costs.items():
        taken = "taken" if tokens_ahead == tuned.tuning.draft_tokens else ""
        table.add_row("tokens guessed ahead", str(tokens_ahead), f"a batch costs {cost:.2f}x", taken)
    for name, speed in tuned.others.items():
        table.add_row("quantization", name, f"{speed:.2f}x", "")
    console = PlainConsole(soft_wrap=True)
    console.print(table)
    console.print(f"best: {tuned.tuning}\nkept in {keep(file_digest(model), tuned.tuning)}")


def _print(comparison: Comparison) -> None:
    from rich.table import Table

    from sgft_edge.measuring.measure import CONTENDERS
    from sgft_edge.terminal.display import PlainConsole

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
    console = PlainConsole()
    console.print(table)
    console.print(_circumstances(comparison), style="dim", soft_wrap=True)


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
