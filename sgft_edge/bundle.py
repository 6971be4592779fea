"""`sgft-edge bundle`: runtime and models in one folder, for a machine without a network."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import Distribution
from pathlib import Path

import click

from sgft_edge import __version__
from sgft_edge.errors import InputError, ModelError, SgftError
from sgft_edge.host.files import toml_tables
from sgft_edge.host.folders import appearing, flush
from sgft_edge.host.machine import MB
from sgft_edge.installation.wheels import closure, licence_files, licence_of, make_wheel
from sgft_edge.solving.default import choose_default
from sgft_edge.store.digests import file_digest, trusted_digest
from sgft_edge.store.header import check_gguf
from sgft_edge.store.manifest import Entry, Manifest, package_models
from sgft_edge.store.places import entry_for, resolve
from sgft_edge.store.splits import model_stem, names, parts, size_of
from sgft_edge.terminal import words
from sgft_edge.terminal.run import run
from sgft_edge.terminal.streams import say

_CARRIED = Path(__file__).parent / "installation" / "carried"  # the scripts and the words that every bundle has


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model in a bundle: its file here, and its entry there; `listed` where that machine knows it by itself."""

    entry: Entry
    path: Path
    digest: str
    listed: bool


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run(command, argv)


@click.command("bundle", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--out", type=words.path, required=True, help="The folder to make.")
@click.option(
    "--models",
    type=words.models,
    metavar="NAMES",
    help="By commas.  [default: the one that answers here]",
)
@click.option("--extras", default="", metavar="NAMES", help="Extras to carry, such as serve; they must be installed.")
@click.option("--archive/--no-archive", default=True, show_default=True, help="Write OUT.tar.gz beside it.")
@click.option("--force", is_flag=True, help="Replace what is there.")
def command(out: Path, models: str | None, extras: str, archive: bool, force: bool) -> None:
    """Pack the runtime as it is installed here, with models, for a machine without a network.

    There, `install.sh` checks and installs it into the folder, and `run.sh` runs the command. No network is needed
    here either, but from a checkout to build this package.
    """
    named = models if models is not None else choose_default().name
    carried = [_carried(name.strip()) for name in named.split(",") if name.strip()]
    wanted = [name.strip() for name in extras.split(",") if name.strip()]
    installed = closure("sgft-edge", wanted)
    out = Path(os.path.abspath(out))
    if not out.name:
        raise InputError(f"--out: expected a folder's name, found {out}")
    packed = out.with_name(f"{out.name}.tar.gz")
    for path in (out, packed) if archive else (out,):
        if path.exists() and not force and (path.is_file() or any(path.iterdir())):
            raise InputError(f"--out {out}: expected a place that is free, found {path}: --force replaces it")
    try:
        with appearing(out) as folder:
            _unfinished(packed).unlink(missing_ok=True)  # of a run that was killed
            _write(folder, carried, installed)
            if archive:
                _pack(folder, out.name, packed)
    except BlockingIOError as e:
        raise SgftError(f"--out {out}: another bundle is made there now: wait until it is done") from e
    except OSError as e:
        raise SgftError(f"--out {out}: cannot write there: {e.strerror or e}") from e
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    say(f"{out}: {len(installed)} wheels, {len(carried)} models, {size / MB:.0f} MB")


def _write(folder: Path, carried: Sequence[BundledModel], installed: Sequence[Distribution]) -> None:
    """Everything that a bundle has, the digests last."""
    wheels, models = folder / "wheels", folder / "models"
    wheels.mkdir()
    models.mkdir()
    required = []
    for one in installed:
        wheel = make_wheel(one, wheels)
        required.append(f"{one.name}=={one.version} --hash=sha256:{_sha256(wheel)}")
        texts = licence_files(one)
        for name, text in texts.items():
            _put(folder / "licences" / f"{one.name}-{one.version}" / name, text)
    _put(folder / "requirements.txt", "\n".join([*required, ""]))
    for model in carried:
        pieces = parts(model.path)
        called = names(model.entry.name, len(pieces)) if len(pieces) > 1 else [model.entry.file]
        for part, name in zip(pieces, called, strict=True):
            _link(part, models / name)
    tables = {model.entry.name: model.entry.to_table() for model in carried if not model.listed}
    if tables:
        _put(folder / "config" / "models.toml", toml_tables("models", tables))
    said = [f"{one.name} {one.version}: {licence_of(one)}" for one in installed]
    said += [f"model {model.entry.name}: {model.entry.licence}" for model in carried]
    _put(folder / "licences" / "README.txt", "\n".join(["What each part says of its licence:", "", *said, ""]))
    target = f"{sys.version_info[0]}.{sys.version_info[1]} {sys.platform} {platform.machine()}"
    for script in sorted(_CARRIED.iterdir()):
        _put(folder / script.name, script.read_text().replace("@TARGET@", target))
        (folder / script.name).chmod(0o755 if script.suffix == ".sh" else 0o644)
    listing = {
        "sgft-edge": __version__,
        "python and platform": target,
        "wheels": {one.name: one.version for one in installed},
        "models": {m.entry.name: {"file": m.entry.file, "sha256": m.digest} for m in carried},
    }
    _put(folder / "manifest.json", json.dumps(listing, indent=1) + "\n")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    _put(folder / "SHA256SUMS", "".join(digests))


def _carried(name: str) -> BundledModel:
    """A model by name or file. Raises `ModelError` where it is not here, or not what it should be."""
    path = resolve(name)
    for part in parts(path):
        check_gguf(part)
    digest = file_digest(path, fresh=True)
    known = entry_for(name)
    if known is not None and trusted_digest(known) not in (None, digest):
        raise ModelError(
            f"{path}: expected the file of {known.name}, found another: sgft-edge models pull {known.name}"
        )
    if known is not None and not known.own:
        if package_models() in path.parents:
            raise InputError(
                f"--models: expected models, found {known.name}, which comes with the package: leave it out"
            )
        return BundledModel(known, path, digest, listed=True)
    if known is None:
        stem = re.sub(r"[^a-z0-9._-]+", "-", model_stem(path).lower()).strip("-._") or "model"
        known = Entry(name=stem, title=path.stem, role="model", file=f"{stem}.gguf", licence="NOASSERTION", own=True)
        if stem in Manifest.load().entries:
            raise InputError(f"--models {name}: expected a file with a name of its own, {stem} is another model")
    file = names(known.name, len(parts(path)))[0]
    entry = replace(known, file=file, sources=(), sha256=digest, bytes=size_of(path))
    return BundledModel(entry, path, digest, listed=False)


def _pack(folder: Path, name: str, target: Path) -> None:
    """The folder as a compressed archive; equal folders make equal archives."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    temporary = _unfinished(target)
    try:
        with (
            temporary.open("wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", dereference=True) as archive,
        ):
            for path in sorted(folder.rglob("*")):
                archive.add(path, f"{name}/{path.relative_to(folder)}", recursive=False, filter=plain)
        flush(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _unfinished(archive: Path) -> Path:
    """Where an archive is written; who holds the bundle's folder has this name too."""
    return archive.with_name(f".{archive.name}.part")


def _link(source: Path, target: Path) -> None:
    """Another name for a file where the disk allows that, else a copy."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
