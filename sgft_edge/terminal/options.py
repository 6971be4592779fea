"""Command line options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sgft_edge.errors import InputError
from sgft_edge.host.files import read_bounded
from sgft_edge.reasoning.settings import DEFAULT_CONTEXT, DEVICES, OPERANDS, PLANS, Sampling, Settings
from sgft_edge.terminal import words
from sgft_edge.terminal.streams import remark

if TYPE_CHECKING:
    from sgft_edge.solver import Solver


F = TypeVar("F", bound=Callable[..., Any])

_MODEL = (
    click.option(
        "--guide",
        type=words.models,
        metavar="MODEL",
        help="Name or GGUF file.  [default: as `sgft-edge models use` tells]",
    ),
    click.option("--answerer", type=words.models, metavar="MODEL", help="Name or GGUF file.  [default: the guide's]"),
    click.option(
        "--adapter",
        type=words.models,
        default="auto",
        show_default=True,
        metavar="ADAPTER",
        help="The guide's LoRA: name, file, or none.",
    ),
    click.option(
        "--answerer-adapter",
        type=words.models,
        default="auto",
        show_default=True,
        metavar="ADAPTER",
        help="The answerer's, likewise.",
    ),
    click.option(
        "--context", default=DEFAULT_CONTEXT, show_default=True, metavar="TOKENS", help="Room for one question."
    ),
    click.option("--threads", type=int, metavar="N", help="CPU threads.  [default: the physical cores]"),
    click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True),
    click.option("--max-memory", metavar="SIZE", help="As 600M or 1.5G: lowers what does not fit, or refuses it."),
    click.option("--require-gpu", is_flag=True, help="Fail where no layer runs on a GPU."),
)
_SETTINGS = (
    click.option("--plan", type=click.Choice(PLANS), default="auto", show_default=True, help="For strategy exact."),
    click.option(
        "--operands", type=click.Choice(OPERANDS), default="free", show_default=True, help="For strategy exact."
    ),
    click.option("--max-tokens", default=512, show_default=True, metavar="N", help="Longest free answer."),
    click.option("--votes", default=1, show_default=True, metavar="K", help="Answers; the most frequent one stands."),
    click.option("--temperature", default=0.0, show_default=True, metavar="T", help="0 is greedy."),
    click.option("--top-p", default=1.0, show_default=True, metavar="P"),
    click.option("--min-p", default=0.0, show_default=True, metavar="P"),
    click.option("--seed", type=int, metavar="N", help="Of what is drawn; with one the text is reproducible."),
    click.option(
        "--reproducible/--no-reproducible",
        default=None,
        help="The same text each time, in more time.  [default: with --seed]",
    ),
)


def model_options(function: F) -> F:
    """Options that `open_solver` reads."""
    return _decorated(function, _MODEL)


def settings_options(function: F) -> F:
    """Options that `settings_from` reads."""
    return _decorated(function, _SETTINGS)


def _decorated(function: F, options: tuple[Callable[[F], F], ...]) -> F:
    for option in reversed(options):
        function = option(function)
    return function


def settings_from(given: dict[str, Any], strategy: str = "auto") -> Settings:
    """The settings that the options ask for. Raises `InputError`."""
    sampling = Sampling(given["temperature"], given["top_p"], given["min_p"], given["seed"])
    return Settings(
        strategy,
        given["plan"],
        given["operands"],
        given["max_tokens"],
        given["votes"],
        sampling,
        reproducible=given["reproducible"],
    )


def guide_of(given: dict[str, Any]) -> str:
    """The guide that the options name, or the default, which is told on stderr where it is not the plain one."""
    if given["guide"] is not None:
        return str(given["guide"])
    from sgft_edge.solving.default import choose_default

    default = choose_default(_limit(given), given["context"])
    if default.why:
        remark(f"sgft-edge: {default}")
    return default.name


def open_solver(given: dict[str, Any], settings: Settings, parallel: int = 1, beside: Solver | None = None) -> Solver:
    """The solver that the options ask for; what is odd about it goes to stderr."""
    from sgft_edge.solver import Solver

    solver = Solver.open(
        guide_of(given),
        given["answerer"],
        adapter=given["adapter"],
        answerer_adapter=given["answerer_adapter"],
        settings=settings,
        context=given["context"],
        parallel=parallel,
        threads=given["threads"],
        device=given["device"],
        require_gpu=given["require_gpu"],
        max_memory=_limit(given),
        beside=beside,
    )
    for warning in solver.cast.warnings:
        remark(f"sgft-edge: warning: {warning}")
    return solver


def with_model(given: dict[str, Any], guide: str) -> dict[str, Any]:
    """The options with another model in both roles, and what comes with it."""
    return {**given, "guide": guide, "answerer": None, "adapter": "auto", "answerer_adapter": "auto"}


def _limit(given: dict[str, Any]) -> int | None:
    from sgft_edge.solving.budget import parse_size

    return parse_size(given["max_memory"]) if given["max_memory"] is not None else None


def read_text(path: Path, what: str) -> str:
    """A text file's content. Raises `InputError`."""
    try:
        return read_bounded(path).decode()
    except OSError as e:
        raise InputError(f"{what}: cannot read {path}: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise InputError(f"{what}: expected UTF-8, found byte 0x{e.object[e.start]:02x} in {path}: convert it") from e
