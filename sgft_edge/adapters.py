"""Which LoRA a role plays with: one that was named, or the one that comes with its model.

An adapter's file says what it was trained to write, one or several of these joined by "+":

    guide      guidance, by the prompt that asks for a plan
    answerer   expressions, by the prompt of strategy `exact`
    solver     steps and expressions, by that same prompt
    program    programs, by the prompt of strategy `program`

It is switched on for the prompts that it was trained with and off for all others: free answers are always the base's.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from sgft_edge import prompts
from sgft_edge.binding import peek
from sgft_edge.errors import InputError, ModelError
from sgft_edge.manifest import Entry, Manifest
from sgft_edge.store import entry_for, locate, resolve

PROMPTS_KEY = "sgft.prompts_digest"  # metadata of an adapter: the prompts that it was trained with,
ROLE_KEY = "sgft.role"  # and what it was trained to write

Name = str | PathLike[str]

_TASKS = {
    "guide": {"guide": prompts.GUIDE, "solver": prompts.EXECUTE},
    "answerer": {"answerer": prompts.EXECUTE, "solver": prompts.EXECUTE, "program": prompts.WRITE_PROGRAM},
}


ROLES = ("guide", "answerer", "solver", "program")


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter's file and its training's roles; empty where the file does not say."""

    path: Path
    trained_for: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> AdapterFile:
        """What the file says of itself. Raises `ModelError` where it cannot be read or names a role unknown here."""
        roles = peek(path, ROLE_KEY)
        trained_for = tuple(roles.split("+")) if roles else ()
        if unknown := [role for role in trained_for if role not in ROLES]:
            raise ModelError(f"{path}: expected an adapter for {', '.join(ROLES)}, found {unknown[0][:40]!r}")
        return cls(path, trained_for)

    def tasks(self, role: str) -> frozenset[str]:
        """The prompts that this adapter is on for in that role, of those that the role reads."""
        known = _TASKS[role]
        return frozenset(task for name, task in known.items() if not self.trained_for or name in self.trained_for)

    @property
    def prompts_digest(self) -> str:
        """What the file names where it was trained with these prompts."""
        return prompts.guide_digest("program" in self.trained_for)

    @property
    def plan(self) -> str:
        """How a guide with this adapter plans."""
        return "stepwise" if "solver" in self.trained_for else "first"


def choose_adapters(
    guide: Name, adapter: Name, answerer: Name, answerer_adapter: Name, *, one_model: bool
) -> tuple[AdapterFile | None, AdapterFile | None]:
    """The guide's and the answerer's adapter, each a name, a file, "none", or "auto": that of the model.

    Where one model plays both roles, an answerer's "auto" goes with the guide: its adapter, if that was trained to
    answer too, and none where the guide has "none". A guide's adapter that cannot answer leaves the answerer its own.
    Raises `InputError` for an adapter that was trained for another
    role.
    """
    guides = _chosen(adapter, guide, "guide", "--adapter")
    if one_model and answerer_adapter == "auto":
        if adapter == "none":
            return guides, None
        if guides is not None and guides.trained_for and guides.tasks("answerer"):
            return guides, guides
    return guides, _chosen(answerer_adapter, answerer, "answerer", "--answerer-adapter")


def _chosen(wanted: Name, model: Name, role: str, option: str) -> AdapterFile | None:
    if wanted == "none":
        return None
    if wanted == "auto":
        return _shipped(model, role)
    found = AdapterFile.read(resolve(wanted))
    if not found.tasks(role):
        expected = " or ".join(_TASKS[role])
        raise InputError(
            f"{option}: expected an adapter trained as {expected}, found {'+'.join(found.trained_for)} in {found.path}"
        )
    return found


def _shipped(model: Name, role: str) -> AdapterFile | None:
    """The adapter that the manifest has for a model's role, if it is on this machine."""
    entries = Manifest.load().entries
    known = entry_for(model)
    for entry in entries.values() if known else ():
        if entry.role == "adapter" and known and _is_base(entries.get(entry.base or ""), known) and locate(entry):
            found = AdapterFile.read(resolve(entry.name))
            if found.trained_for and found.tasks(role):
                return found
    return None


def _is_base(base: Entry | None, model: Entry) -> bool:
    """Whether two entries name one model, perhaps by two names."""
    if base is None or base.name == model.name:
        return base is not None
    return base.sha256 is not None and base.sha256 == model.sha256
