"""`sgft-edge models`: what models there are, fetching them, checking them, and naming files of one's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from sgft_edge.errors import EngineError, ModelError, ModelMissing, PullError
from sgft_edge.host import files
from sgft_edge.host.machine import MB
from sgft_edge.reasoning.settings import DEFAULT_MODEL, FALLBACK_MODEL
from sgft_edge.solving.default import choose_default, own_default, require_memory, use, use_none
from sgft_edge.store import digests, manifest, places
from sgft_edge.store.manifest import Entry, Manifest
from sgft_edge.store.pull import Progress, discard, pull
from sgft_edge.terminal import words
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import remark, say


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv)


@click.group("models")
def command() -> None:
    """Show, fetch, check and name models."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array instead of a table.")
def list_models(as_json: bool) -> None:
    """Show every known model and whether it is on this machine, and which one answers where none is named."""
    rows = [places.state(entry) for entry in Manifest.load().entries.values()]
    name, said = _default()
    if as_json:
        say(json.dumps([{**asdict(row), "default": row.name == name} for row in rows], indent=1))
        return
    from rich.table import Table

    from sgft_edge.terminal.display import PlainConsole

    table = Table(box=None, pad_edge=False)
    for title in ("NAME", "ROLE", "SIZE", "LICENCE", "HERE", "VERIFIED"):
        justify: Literal["left", "right"] = "right" if title == "SIZE" else "left"
        table.add_column(title, justify=justify, overflow="fold", no_wrap=title == "NAME")
    for row in rows:
        size = f"{row.bytes / MB:.0f} MB" if row.bytes is not None else "?"
        table.add_row(row.name, row.role, size, row.licence, "yes" if row.path else "-", row.verified)
    PlainConsole().print(table)
    say(f"\n{said}")


@command.command("pull")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def pull_models(names: tuple[str, ...]) -> None:
    """Fetch models into the models folder; print their paths.

    Without NAME, the default: your own, else qwen2.5-coder-0.5b, or smollm2 where that cannot be fetched or does not
    fit into this machine's memory.
    """
    known = Manifest.load()
    wanted = names or filter(None, [own_default()])
    entries = [known.get(name) for name in wanted]  # all looked up before the first is fetched
    for path in map(_pull, entries) if entries else [_pull_plain_default(known)]:
        say(path)


def _pull(entry: Entry) -> Path:
    with _progress(entry) as progress:
        return pull(entry, progress, _accept)


def _accept(entry: Entry, file: Path) -> None:
    """Open a file in a process of its own before it gets its name. Where llama.cpp does not load, that is put off."""
    from sgft_edge.solving.strangers import try_entry

    try:
        try_entry(entry, file, Manifest.load())
    except EngineError as e:
        click.echo(f"sgft-edge: {entry.name} is tried when it is opened first: {e}", err=True)


def _pull_plain_default(known: Manifest) -> Path:
    entry, fallback = known.get(DEFAULT_MODEL), known.get(FALLBACK_MODEL)
    try:
        require_memory(entry)
        return _pull(entry)
    except (ModelError, PullError) as e:
        remark(f"sgft-edge: {e}; {fallback.name}, which is smaller and answers worse, is fetched instead")
        return _pull(fallback)


@command.command("use")
@click.argument("name", required=False, type=words.models)
@click.option("--auto", is_flag=True, help="Take the choice back: the best model that is here and fits answers.")
def use_model(name: str | None, auto: bool) -> None:
    """Choose the model that answers where none is named; without NAME, say which one does."""
    if name is not None and auto:
        raise click.UsageError("expected NAME or --auto, found both")
    if name is not None:
        use(name)
    if auto:
        use_none()
    say(_default()[1] if auto else choose_default())


def _default() -> tuple[str | None, str]:
    """The name of the model that answers where none is named, if there is one, and what to say of it."""
    try:
        default = choose_default()
    except ModelError as e:
        return None, str(e)
    return default.name, str(default)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
def verify(names: tuple[str, ...]) -> None:
    """Read model files again, compare their digests, open those that did not come with a digest of the package's.

    Without NAME, all that are on this machine.
    """
    known = Manifest.load()
    damaged = []
    for entry in [known.get(name) for name in names] if names else known.entries.values():
        path = places.locate(entry)
        if path is None:
            if names:
                raise places.missing(entry)
            continue
        expected = digests.trusted_digest(entry)
        try:
            found = digests.file_digest(path, fresh=True)
            if found == expected or expected is None:
                _accept(entry, path)
        except ModelError as e:
            click.echo(f"{entry.name}: {e}")
            damaged.append(entry.name)
            continue
        if expected is None:
            say(f"{entry.name}: nothing to compare with; its sha256 is {found}")
        elif found == expected:
            say(f"{entry.name}: ok")
        else:
            say(f"{entry.name}: {path} has sha256 {found}, expected {expected}")
            damaged.append(entry.name)
    if damaged:
        raise ModelError(f"not as expected: {', '.join(damaged)}; `sgft-edge models pull NAME` fetches a file anew")


@command.command(options_metavar="[OPTIONS]")
@click.argument("names_and_path", nargs=-1, required=True, metavar="NAME FILE | FOLDER")
@click.option("--role", type=click.Choice(["model", "adapter"]), default="model", show_default=True)
@click.option("--licence", default="NOASSERTION", show_default=True, help="SPDX identifier.")
@click.option("--base", metavar="NAME", help="The model that an adapter belongs to.")
@click.option("--force", is_flag=True, help="Replace an existing name.")
def add(names_and_path: tuple[str, ...], role: str, licence: str, base: str | None, force: bool) -> None:
    """Give a GGUF file a name, or take the names in an export's FOLDER; the files stay where they are."""
    match names_and_path:
        case (folder,):
            if not Path(folder).is_dir():
                raise click.UsageError(f"expected NAME and FILE, or an export's folder, found {folder!r} alone")
            entries = places.add_export(Path(folder), force=force, accept=_accept)
        case (name, file):
            if not Path(file).is_file():
                raise click.UsageError(f"no model file at {file}")
            named = (name, Path(file))
            entries = [places.add(*named, role=role, licence=licence, base=base, force=force, accept=_accept)]
        case _:
            raise click.UsageError(f"expected NAME and FILE, or an export's folder, found {len(names_and_path)} words")
    for entry in entries:
        say(f"{entry.name}: {places.locate(entry)}")


@command.command("rm")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, yes: bool) -> None:
    """Delete a model's downloaded file, and the name if it is your own; a file named by `add` is not deleted."""
    entry = Manifest.load().get(name)
    download = files.models_folder() / entry.file
    if download.is_file() and not yes:
        click.confirm(f"Delete {download} ({download.stat().st_size / MB:.0f} MB)?", abort=True)
    if discard(entry):
        say(f"deleted {download}")
    elif not entry.own:
        raise ModelMissing(f"{name} is not in {files.models_folder()}: there is nothing to delete")
    if entry.own:
        manifest.remove(name)
        say(f"{name} is no longer in models.toml")


@command.command()
@click.argument("name", required=False, type=words.models)
def where(name: str | None) -> None:
    """Print a model's path; without NAME, the folders."""
    if name is not None:
        say(places.resolve(name))
        return
    say(f"models   {files.models_folder()}")
    say(f"config   {files.config_folder()}")
    say(f"cache    {files.cache_folder()}")
    say(f"package  {manifest.package_models()}")


@contextmanager
def _progress(entry: Entry) -> Iterator[Progress]:
    """Show a bar on a terminal, a line for every tenth elsewhere; both on stderr, so that stdout holds the paths."""
    if not sys.stderr.isatty():
        yield _ProgressLines(entry.name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task(entry.name, total=entry.bytes)
        yield lambda arrived, total: bars.update(task, completed=arrived, total=total)


class _ProgressLines:
    """Print a line whenever another tenth has arrived, or another 100 MB while the total is unknown."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps = 0

    def __call__(self, arrived: int, total: int | None) -> None:
        steps = arrived * 10 // total if total else arrived // (100 * MB)
        if steps > self.steps:
            self.steps = steps
            of_total = f" of {total / MB:.0f}" if total else ""
            remark(f"{self.name}: {arrived / MB:.0f}{of_total} MB")


if __name__ == "__main__":
    sys.exit(main())
