"""Which LoRA a role plays with: one that was named, or the one that comes with its model.

An adapter's file says what it was trained to write, one or several of these joined by "+":

    guide      guidance, by the prompt that asks for a plan
    answerer   expressions, by the prompt of strategy `exact`
    solver     steps and expressions, by that same prompt
    program    programs, by the prompt of strategy `program`

It is switched on for the prompts that it was trained with and off for all others: free answers are always the base's.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cache
from os import PathLike
from pathlib import Path

from sgft_edge.errors import InputError, ModelError
from sgft_edge.reasoning import prompts
from sgft_edge.store.header import peek
from sgft_edge.store.manifest import Entry, Manifest
from sgft_edge.store.places import entry_for, locate, resolve

PROMPTS_KEY = "sgft.prompts_digest"  # metadata of an adapter: the prompts that it was trained with,
ROLE_KEY = "sgft.role"  # and what it was trained to write

Name = str | PathLike[str]

_TASKS = {
    "guide": {"guide": prompts.GUIDE, "solver": prompts.EXECUTE},
    "answerer": {"answerer": prompts.EXECUTE, "solver": prompts.EXECUTE, "program": prompts.WRITE_PROGRAM},
}
ROLES = ("guide", "answerer", "solver", "program")
_GUIDES = {prompts.GUIDE, prompts.EXECUTE}
_ANSWERS = (prompts.EXECUTE, prompts.WRITE_PROGRAM)


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


@dataclass(frozen=True, slots=True)
class Adapters:
    """The adapters of a cast: the guide's, and the answerer's for expressions and for programs."""

    guide: AdapterFile | None = None
    answerer: AdapterFile | None = None
    program: AdapterFile | None = None

    @property
    def by_name(self) -> dict[str, AdapterFile]:
        """Those that there are, as reports name them."""
        named = {"adapter": self.guide, "answerer_adapter": self.answerer, "program_adapter": self.program}
        return {name: file for name, file in named.items() if file}

    def by_task(self, role: str) -> dict[str, AdapterFile]:
        """Which one is on for a prompt that the role reads."""
        if role == "guide":
            return dict.fromkeys(self.guide.tasks(role), self.guide) if self.guide else {}
        return {task: file for task, file in zip(_ANSWERS, (self.answerer, self.program), strict=True) if file}

    @property
    def strategy(self) -> str | None:
        """What they were trained for."""
        return "exact" if self.guide or self.answerer else "program" if self.program else None


def choose_adapters(
    guide: Name, adapter: Name, answerer: Name, answerer_adapter: Name, known: Manifest, *, one_model: bool
) -> Adapters:
    """Adapters by name, by file, "none", or "auto": what comes with the model.

    Where one model plays both roles, an answerer's "auto" goes with the guide: its adapter for what that was trained
    to answer, the model's own for the rest, and none where the guide has "none". Raises `InputError` for an adapter
    that was trained for another role.
    """
    look = _Look(known, cache(AdapterFile.read))
    guides = look.chosen(adapter, "--adapter", "guide") if adapter != "auto" else look.shipped(guide, "guide", _GUIDES)
    if answerer_adapter == "auto":
        if one_model and adapter == "none":
            return Adapters(guides)
        able = guides.tasks("answerer") if one_model and guides and guides.trained_for else frozenset()
        found = (guides if task in able else look.shipped(answerer, "answerer", {task}) for task in _ANSWERS)
    else:
        answers = look.chosen(answerer_adapter, "--answerer-adapter", "answerer")
        found = (answers if answers and task in answers.tasks("answerer") else None for task in _ANSWERS)
    return Adapters(guides, *found)


@dataclass(frozen=True, slots=True)
class _Look:
    """A look for adapters, which reads each file once."""

    known: Manifest
    read: Callable[[Path], AdapterFile]

    def chosen(self, wanted: Name, option: str, role: str) -> AdapterFile | None:
        if wanted == "none":
            return None
        found = self.read(resolve(wanted, self.known))
        if not found.tasks(role):
            expected, trained_for = " or ".join(_TASKS[role]), "+".join(found.trained_for)
            raise InputError(
                f"{option}: expected an adapter trained as {expected}, found {trained_for} in {found.path}"
            )
        return found

    def shipped(self, model: Name, role: str, tasks: Set[str]) -> AdapterFile | None:
        """The adapter that the manifest has for one of these prompts of a model, if it is on this machine."""
        entries, known = self.known.entries, entry_for(model, self.known)
        for entry in entries.values() if known else ():
            if entry.role == "adapter" and known and _is_base(entries.get(entry.base or ""), known) and locate(entry):
                found = self.read(resolve(entry.name, self.known))
                if found.trained_for and tasks & found.tasks(role):
                    return found
        return None


def _is_base(base: Entry | None, model: Entry) -> bool:
    """Whether two entries name one model, perhaps by two names."""
    if base is None or base.name == model.name:
        return base is not None
    return base.sha256 is not None and base.sha256 == model.sha256
