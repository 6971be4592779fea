"""Models that are split over several files, NAME-00001-of-00003.gguf and so on, as llama.cpp's `gguf-split` names them.

llama.cpp finds the others by the first one's name, so a link keeps that name and is never followed to another.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sgft_edge.errors import ModelError
from sgft_edge.store.header import read_header

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_COUNT = "split.count"  # of the metadata; a file that lacks it is whole, whatever its name


def parts(path: Path) -> tuple[Path, ...]:
    """All files of a model: the one, or those of a split model in their order.

    Raises `ModelError` for a part that is not the first, for one that says otherwise, and where one is missing.
    """
    found = _NAME.fullmatch(path.name)
    if found is None or not path.is_file():
        return (path,)
    number, count, said = int(found["number"]), int(found["count"]), announced(path)
    if said == 1:
        return (path,)
    if said != count:
        raise ModelError(f"{path}: expected {count} parts by its name, it announces {said}: fetch all parts anew")
    files = tuple(path.with_name(name) for name in names(found["stem"], count))
    if number != 1:
        raise ModelError(f"{path}: expected the first part of a split model, found part {number}: give {files[0].name}")
    for file in files:
        if not file.is_file():
            raise ModelError(f"{path}: expected {count} parts beside one another, {file.name} is missing: put it there")
    return files


def announced(path: Path) -> int:
    """How many parts a file says that its model has; 1 where it says nothing or is damaged, as others will find."""
    try:
        return max(read_header(path).numbers(_COUNT)[0], 1)
    except ModelError:
        return 1


def names(stem: str, count: int) -> list[str]:
    """The file names of a model in so many parts."""
    if count == 1:
        return [f"{stem}.gguf"]
    return [f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def model_stem(path: Path) -> str:
    """A file's name without its ending and a part's number."""
    found = _NAME.fullmatch(path.name)
    return found["stem"] if found else path.stem


def size_of(path: Path) -> int:
    """A model's size in bytes, all parts. Raises as `parts`, and `OSError`."""
    return sum(file.stat().st_size for file in parts(path))


def settled(path: Path) -> Path:
    """An absolute path of a model that goes on to hold: links are followed, but for a split model's."""
    path = path.expanduser()
    if _NAME.fullmatch(path.name):
        return Path(os.path.abspath(path))
    return path.resolve()
