"""Guidances that a guide wrote before, for any answerer: `sgft-edge solve --strategy guidance --input FILE`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgft_edge.errors import InputError
from sgft_edge.reasoning.problems import read_rows
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.strategies import GUIDE_PARTS


@dataclass(frozen=True, slots=True)
class MadeGuidance:
    """A guidance, the tokens that it took (as `engine.Usage`), and by which files it was made."""

    text: str
    usage: Mapping[str, float]
    models: Mapping[str, str]
    digests: Mapping[str, str]
    seed: int

    @property
    def source(self) -> dict[str, Any]:
        """What two guidances of one making have in common."""
        return {**self.digests, "seed": self.seed}


def read_guidances(path: Path) -> dict[str, MadeGuidance]:
    """The guidances of a batch by question, with its choices as a guide reads it.

    Raises `InputError` for rows of another strategy and of several guides.
    """
    rows = [(number, row) for number, row in read_rows(path) if "error" not in row]
    found = {_asked(row): _made(path, number, row) for number, row in rows}
    if not found:
        raise InputError(f"{path}: expected guidances, found none")
    first = next(iter(found.values()))
    if any(made.source != first.source for made in found.values()):
        raise InputError(f"{path}: expected guidances of one guide, found several: keep each guide's in a file")
    return found


def _asked(row: Mapping[str, Any]) -> str:
    return Question(row["question"], row.get("choices") or {}).with_choices


def _made(path: Path, number: int, row: Mapping[str, Any]) -> MadeGuidance:
    try:
        if row["strategy"] != "guidance":
            raise InputError(
                f"{path}: line {number}: expected a row of strategy guidance, found {row['strategy']!r}: "
                "make them with sgft-edge solve --strategy guidance --input FILE --output FILE"
            )
        models = {key: row["models"][key] for key in GUIDE_PARTS if key in row["models"]}
        digests = {key: row["digests"][key] for key in (*GUIDE_PARTS, "prompts") if key in row["digests"]}
        return MadeGuidance(row["text"], row["usage"]["guide"], models, digests, row["seed"])
    except (KeyError, TypeError) as e:
        raise InputError(f"{path}: line {number}: expected a solution as sgft-edge solve writes it, found none") from e
