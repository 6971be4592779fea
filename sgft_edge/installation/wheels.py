"""Installed distributions as wheels again, so that another machine gets exactly what runs here.

A wheel is a zip file of a distribution's files and a RECORD of their digests
(https://packaging.python.org/en/latest/specifications/binary-distribution-format/). What pip made on installing is left
out: scripts of entry points, which it makes anew, bytecode, and its own notes.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from itertools import product
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sgft_edge.errors import InputError, SgftError

_OF_THE_INSTALLER = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
_LICENCE = re.compile(r"(?i)(licen[cs]e|copying|notice|authors)")
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip file knows: equal files make equal wheels


def closure(name: str, extras: Iterable[str] = ()) -> list[Distribution]:
    """A distribution and all that it needs here, sorted by name. Raises `SgftError` for what is not installed."""
    found: dict[str, Distribution] = {}
    waiting = [(name, frozenset(extras))]
    seen = set(waiting)
    while waiting:
        wanted, chosen = waiting.pop()
        try:
            found[canonicalize_name(wanted)] = one = distribution(wanted)
        except PackageNotFoundError:
            raise SgftError(f"expected {wanted} to be installed, found nothing: pip install {wanted}") from None
        known = one.metadata.get_all("Provides-Extra") or []
        if unknown := sorted(chosen - set(known)):
            raise InputError(f"expected extras of {wanted} ({', '.join(known)}), found {', '.join(unknown)}")
        for line in one.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *chosen)):
                further = canonicalize_name(requirement.name), frozenset(requirement.extras)
                if further not in seen:
                    seen.add(further)
                    waiting.append(further)
    return [found[key] for key in sorted(found)]


def make_wheel(installed: Distribution, folder: Path) -> Path:
    """Write an installed distribution as a wheel into a folder, and return its path.

    One that is installed in editable mode is built from its source. Raises `SgftError` where it cannot be had.
    """
    if source := _editable_source(installed):
        return _build(source, folder)
    info = _info_folder(installed)
    stem = info.removesuffix(".dist-info")
    files = {place: path.read_bytes() for place, path in _contents(installed, stem)}
    tags = [line.removeprefix("Tag:").strip() for line in _metadata(installed, "WHEEL") if line.startswith("Tag:")]
    wheel = folder / f"{stem}-{_compressed(tags)}.whl"
    record = f"{info}/RECORD"
    lines = [f"{place},sha256={_digest(content)},{len(content)}" for place, content in sorted(files.items())]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, content in sorted(files.items(), key=lambda item: (".dist-info/" in item[0], item[0])):
            entry = zipfile.ZipInfo(place, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if ".data/scripts/" in place else 0o100644) << 16
            archive.writestr(entry, content)
    return wheel


def licence_of(installed: Distribution) -> str:
    """What a distribution says of its licence: an SPDX expression, its own words, or its classifiers."""
    metadata = installed.metadata
    words = next((metadata[name] for name in ("License-Expression", "License") if name in metadata), "")
    classified = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier") or () if c.startswith("License ::")]
    return words.strip().partition("\n")[0] or ", ".join(classified) or "not stated"


def licence_files(installed: Distribution) -> dict[str, str]:
    """The texts of a distribution's licences, by their names."""
    source = _editable_source(installed)
    if source is not None:
        return {path.name: path.read_text() for path in sorted(source.glob("LICENSE*"))}
    files = [file for file in installed.files or () if ".dist-info" in file.parts[0] and _LICENCE.match(file.name)]
    return {file.name: Path(str(file.locate())).read_text(errors="replace") for file in files}


def _contents(installed: Distribution, stem: str) -> Iterator[tuple[str, Path]]:
    """Each file's place in the wheel, and where it lies."""
    scripts = {entry.name for entry in installed.entry_points if entry.group in ("console_scripts", "gui_scripts")}
    for file in installed.files or ():
        path = Path(str(file.locate()))
        if file.suffix == ".pyc" or (".dist-info" in file.parts[0] and file.name in _OF_THE_INSTALLER):
            continue
        if ".." not in file.parts:
            yield file.as_posix(), path
            continue
        place = PurePosixPath(path.resolve().relative_to(Path(sys.prefix).resolve()).as_posix())
        if place.parts[0] in ("bin", "Scripts"):
            if place.stem not in scripts:
                yield f"{stem}.data/scripts/{'/'.join(place.parts[1:])}", path
        else:
            yield f"{stem}.data/data/{place}", path


def _build(source: Path, folder: Path) -> Path:
    """The wheel of a source tree."""
    flags = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []  # else pip fetches it
    before = set(folder.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *flags]
    done = subprocess.run([*command, "--wheel-dir", folder, source], capture_output=True, text=True, check=False)
    made = set(folder.glob("*.whl")) - before
    if done.returncode or not made:
        raise SgftError(f"cannot build a wheel of {source}: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
    return made.pop()


def _editable_source(installed: Distribution) -> Path | None:
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(origin["url"]).path))


def _info_folder(installed: Distribution) -> str:
    for file in installed.files or ():
        if file.parts[0].endswith(".dist-info"):
            return str(file.parts[0])
    raise SgftError(f"{installed.name}: expected an installed wheel, found another kind: pip install it anew")


def _metadata(installed: Distribution, name: str) -> list[str]:
    return (installed.read_text(name) or "").splitlines()


def _compressed(tags: Iterable[str]) -> str:
    """Tags as a wheel's name has them; they are all combinations of what it names."""
    parts = [sorted(set(part)) for part in zip(*(tag.split("-") for tag in tags), strict=True)]
    if not parts or {"-".join(tag) for tag in product(*parts)} != set(tags):
        raise SgftError(f"expected tags that make a wheel's name, found {', '.join(tags) or 'none'}")
    return "-".join(".".join(part) for part in parts)


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
