"""The ways to answer a question: what each runs, which models and adapters it uses, what it asks of who writes.

Each is a generator that yields completion requests, is sent what was written, and returns a `Draft`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sgft_edge.reasoning import plain
from sgft_edge.reasoning.calc import calc
from sgft_edge.reasoning.exact import exact
from sgft_edge.reasoning.panel import panel
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.task import Task, Writing

GUIDE_PARTS = ("guide", "adapter")
_ALL_PARTS = (*GUIDE_PARTS, "answerer", "answerer_adapter", "program_adapter")


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way. `parts` are those of a solution's `models` that it uses.

    What is `planned` is a guidance that is executed exactly, under grammars. What `interrupts` goes on after a text
    that the runtime wrote. What `replies` has no short answer to vote on, and keeps to a grammar itself.
    """

    run: Callable[[Task], Writing]
    parts: tuple[str, ...]
    planned: bool = False
    interrupts: bool = False
    replies: bool = False


STRATEGIES: Mapping[str, Strategy] = {
    # the answer alone
    "direct": Strategy(plain.direct, ("answerer",)),
    # a chain of thought
    "cot": Strategy(plain.cot, ("answerer",)),
    # a plan and its execution in one free answer (https://arxiv.org/abs/2305.04091)
    "plan": Strategy(plain.plan, ("answerer",)),
    # a chain of thought whose equations are computed exactly
    "calc": Strategy(calc, ("answerer",), interrupts=True),
    # a straight-line program, computed exactly
    "program": Strategy(plain.program, ("answerer", "program_adapter")),
    # a guidance, then a free answer that follows it (https://arxiv.org/abs/2412.09906)
    "sg": Strategy(plain.sg, (*GUIDE_PARTS, "answerer")),
    # a guidance, then one expression a step, computed exactly
    "exact": Strategy(exact, (*GUIDE_PARTS, "answerer", "answerer_adapter"), planned=True),
    # exact, program and calc, until two of them agree
    "panel": Strategy(panel, _ALL_PARTS, planned=True, interrupts=True),
    # the guidance alone, for another model to follow
    "guidance": Strategy(plain.guidance, GUIDE_PARTS),
    # a reply of the answerer to a conversation
    "chat": Strategy(plain.chat, ("answerer",), replies=True),
    # a text that goes on as it stands, outside any chat template
    "complete": Strategy(plain.complete, ("answerer",), replies=True),
}


def parts(strategy: str, given_guidance: bool) -> tuple[str, ...]:
    """Which models and adapters a strategy uses, as a solution's `models` name them."""
    used = _ALL_PARTS if strategy == "auto" else STRATEGIES[strategy].parts
    return tuple(part for part in used if not (given_guidance and part in GUIDE_PARTS))


def is_planned(strategy: str) -> bool:
    """Whether a guidance may be executed exactly, so that settings of plans and operands count."""
    return strategy == "auto" or STRATEGIES[strategy].planned


def choose(question: Question, wanted: str, auto: str | None, auto_choices: str | None) -> tuple[str, str]:
    """The strategy for a question, and the reason for it; `auto` and `auto_choices` measured best with the models."""
    if wanted != "auto":
        return wanted, "a reply to the conversation" if wanted == "chat" else "asked for"
    if question.choices:
        return auto_choices or "sg", "the question has choices" + (", and this measured best" if auto_choices else "")
    if question.guidance is not None:
        numeric = question.is_numeric
        return "exact" if numeric else "sg", f"the question has {'' if numeric else 'no '}numbers, and a guidance"
    if not question.is_numeric:
        return "chat", "the question has no numbers, and nothing to plan"
    if auto is None:
        return "program", "the question has numbers, and nothing was measured for this model"
    return auto, "the question has numbers, and this measured better for this model"
