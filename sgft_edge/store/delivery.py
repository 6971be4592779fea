"""What a source brings of a model file, and the folders that it may work in."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sgft_edge.errors import PullError
from sgft_edge.host.machine import MB
from sgft_edge.store.manifest import Entry


@dataclass
class Delivery:
    """One source's work on an entry's file.

    `staging` is empty when the work begins and is cleared after it. What lies in `joined` outlives a failure, so that
    the next pull goes on from there; both are absent where nothing was put there. `bytes` is the file's size once it
    is known, `before` how much of it was there before what now grows in `staging`.
    """

    entry: Entry
    staging: Path
    joined: Path
    source: str
    bytes: int | None
    before: int = 0
    origin: dict[str, str] = field(default_factory=dict)
    published_sha256: str | None = None

    def need_room(self, needed: int | None) -> None:
        """Raise PullError unless the disk has `needed` bytes left; None stands for a size that nobody knows."""
        free = shutil.disk_usage(self.staging).free
        if needed is not None and free < needed:
            raise PullError(
                f"needs {needed / MB:.0f} MB of free space in {self.staging.parent}, found {free / MB:.0f} MB: "
                "free some, or set SGFT_EDGE_MODELS to another folder"
            )

    def arrived(self) -> int:
        """Bytes that are here: `before`, and the largest file in staging; so it is with every library's release."""
        sizes = [0]
        for parent, _, names in os.walk(self.staging):
            for name in names:
                with suppress(OSError):  # renamed or removed meanwhile
                    sizes.append(os.stat(os.path.join(parent, name)).st_size)
        return self.before + max(sizes)


def one_line(error: object, limit: int = 300) -> str:
    """An error's text as a part of a message."""
    text = " ".join(str(error).split()).removeprefix("ERROR: ") or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
