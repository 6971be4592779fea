"""Names of files and of models, and numbers, as they are typed, looked at before anything else is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import click

from sgft_edge.errors import InputError
from sgft_edge.host.files import place


def path(typed: str | Path) -> Path:
    """The type of an option that names a file or a folder."""
    try:
        return place(str(typed))
    except InputError as e:
        raise click.BadParameter(str(e)) from e


def models(typed: str) -> str:
    """The type of an option that names a model, or several by commas; a `~` that is no folder is refused."""
    for name in typed.split(","):
        if name.strip().startswith("~"):
            path(name.strip())
    return typed


def check_model(name: str) -> None:
    """Raise `InputError` for a model's name that is a path and cannot be one."""
    if name.startswith("~") or "\0" in name:
        place(name)


def number(least: float, most: float = math.inf, *, above: bool = False) -> Callable[[str | float], float]:
    """The type of an option that is a finite number from `least`, or `above` it, to `most`."""

    def number(typed: str | float) -> float:
        value = float(typed)
        if not (least < value if above else least <= value) or not value <= most or math.isinf(value):
            bounds = f"{'more than' if above else 'at least'} {least:g} and at most {most:g}"
            raise click.BadParameter(f"expected a finite number of {bounds}, found {typed}")
        return value

    return number
