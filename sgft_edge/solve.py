"""`sgft-edge solve`, also `python -m sgft_edge.solve`: answer a question, or a file of them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from sgft_edge.errors import InputError, SgftError
from sgft_edge.reasoning.computed import computed, events_of
from sgft_edge.reasoning.question import MAX_CHARACTERS, Question, parse_choices
from sgft_edge.reasoning.settings import STRATEGIES
from sgft_edge.reasoning.solution import Event, Solution
from sgft_edge.terminal import words
from sgft_edge.terminal.options import model_options, open_solver, read_text, settings_from, settings_options
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import say


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv)


@click.command("solve", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("question", required=False)
@click.option("--file", type=words.path, help="Read the question from a file.")
@click.option("--choices", metavar="TEXT", help="Options of a multiple choice, such as 'A=yes;B=no'.")
@click.option("--strategy", type=click.Choice(STRATEGIES), default="auto", show_default=True)
@click.option("--guidance-file", type=words.path, help="Follow the numbered steps in this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole solution as JSON.")
@click.option("--quiet", is_flag=True, help="Print the final answer alone.")
@click.option("--input", "source", type=words.path, help="Batch: JSONL rows with a 'question' each.")
@click.option("--output", "target", type=words.path, help="Batch: JSONL solutions; resumes.")
@click.option("--restart", is_flag=True, help="Batch: overwrite the output instead of resuming.")
@click.option(
    "--parallel", default=8, show_default=True, metavar="N", help="Batch: questions at once; else votes at once."
)
@settings_options
@model_options
def command(question: str | None, source: Path | None, target: Path | None, **given: Any) -> None:
    """Answer QUESTION, or the one that is piped in, offline.

    A guide model plans the steps, an answerer carries them out, and arithmetic is computed exactly.
    """
    settings = settings_from(given, given["strategy"])
    if source is not None or target is not None:
        if source is None or target is None or question is not None:
            raise click.UsageError("a batch takes --input and --output together, and no question")
        from sgft_edge.terminal.batch import run_batch

        run_batch(source, target, given, settings)
        return
    asked = Question(
        _question_text(question, given["file"]),
        parse_choices(given["choices"]),
        read_text(given["guidance_file"], "guidance") if given["guidance_file"] else None,
    )
    if (solution := computed(asked, settings)) is not None:  # before a model is opened
        events = (*events_of(solution), Event("solution", solution=solution))
        _print(given, lambda: solution, lambda: events)
        return
    with open_solver(given, settings, parallel=min(settings.votes, given["parallel"])) as solver:
        _print(given, lambda: solver.solve(asked), lambda: solver.stream(asked))


def _print(given: dict[str, Any], solve: Callable[[], Solution], stream: Callable[[], Iterable[Event]]) -> None:
    """Show a question's solution in the form that the options ask for."""
    if given["quiet"] or given["as_json"]:
        solution = solve()
        text = json.dumps(solution.to_dict(), ensure_ascii=False, indent=1) if given["as_json"] else None
        say(text or solution.answer or solution.text)
    else:
        from sgft_edge.terminal.display import show

        show(stream())


def _is_text(argument: str) -> bool:
    """Whether an argument holds no bytes that the locale's encoding lacks."""
    return not any("\udc80" <= char <= "\udcff" for char in argument)


def _question_text(argument: str | None, file: Path | None) -> str:
    """The question from the one place where it was given."""
    if argument is not None and file is not None:
        raise click.UsageError("expected a question or --file, found both")
    if argument is not None and argument != "-":
        with suppress(UnicodeDecodeError):  # UTF-8 under a locale of another encoding
            return argument if _is_text(argument) else os.fsencode(argument).decode()
        return argument
    if file is not None:
        return read_text(file, "question")
    if sys.stdin.isatty() and argument is None:
        raise click.UsageError("expected a question: write it as an argument, pipe it in, or name a --file")
    try:
        raw = sys.stdin.buffer.read(4 * MAX_CHARACTERS + 1)
    except OSError as e:
        raise SgftError(f"question: cannot read standard input: {e.strerror or e}") from e
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        raise InputError(f"question: expected UTF-8, found byte 0x{raw[e.start]:02x}: convert it first") from e


if __name__ == "__main__":
    sys.exit(main())
