"""Strategy `panel`: the question is solved in ways that err differently, until two of them agree.

A guidance computed exactly, then a program, then a chain of thought whose equations are computed. The first two are
short, and where they agree the third is not asked. Votes over one way, sampled (self-consistency), repeat its habits;
these ways read different prompts and write different texts. Where no two agree, the guidance's answer stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sgft_edge.answers.extraction import is_correct
from sgft_edge.reasoning.calc import calc
from sgft_edge.reasoning.exact import exact
from sgft_edge.reasoning.plain import program
from sgft_edge.reasoning.solution import Event
from sgft_edge.reasoning.task import Draft, Task, Writing

WAYS: Mapping[str, Callable[[Task], Writing]] = {"exact": exact, "program": program, "calc": calc}


def panel(task: Task) -> Writing:
    """The answer that two ways agree on, as the first of them found it; else that of the first way that has one."""

    def show(event: Event) -> None:
        if event.kind != "answer":
            task.emit(event)

    drafts: dict[str, Draft] = {}
    for name, way in WAYS.items():
        draft = yield from way(replace(task, emit=show))
        if draft.answer is None or draft.solved_by != name:  # a way that fell back on another has no say
            continue
        agreed = next((other for other in drafts.values() if _same(draft.answer, other.answer or "")), None)
        drafts[name] = draft
        if agreed is not None:
            return _told(task, drafts, replace(agreed, solved_by="panel"))
    return _told(task, drafts, next(iter(drafts.values()), draft))


def _same(answer: str, other: str) -> bool:
    """Whether two answers are the same letter, word or number."""
    return answer == other or is_correct(answer, other)


def _told(task: Task, drafts: Mapping[str, Draft], draft: Draft) -> Draft:
    """The draft that stands, shown with what each way has found."""
    found = ", ".join(f"{name} {other.answer}" for name, other in drafts.items())
    task.emit(Event("answer", draft.text))
    return replace(draft, notes=[*draft.notes, f"found: {found or 'nothing'}"])
