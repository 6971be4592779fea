"""What a question yields: the events on the way, and the solution at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # llama.cpp is not loaded for what needs no model
    from sgft_edge.reasoning.backend import Usage


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an exact solution: its words, the expression that a model wrote, and the value that we computed.

    Of a question that is a calculation, the words are its own, and the expression is how they were understood. In
    strategy `program` the words are the comment above a line, the name that its value was given, or "return", and
    values stand for names in the expression. `expression` and `value` are None where the step has nothing to compute.
    """

    text: str
    expression: str | None = None
    value: str | None = None


def worked_out(steps: Sequence[Step], text: str) -> str:
    """An answer with what was computed on the way to it, a step and its expression each on a line."""
    lines = [f"{n}. {step.text}\n {step.expression} = {step.value}" for n, step in enumerate(steps, 1) if step.value]
    return "\n".join((*lines, text))


@dataclass(frozen=True, slots=True)
class Event:
    """Something to show while a question is being solved.

    `guidance`, `program` and `answer` bring text as it is decoded; `step`, `expression` and `value` one whole part
    of an exact solution; `note` says that a strategy failed and what comes next; `solution` comes last.
    """

    kind: Literal["guidance", "program", "step", "expression", "value", "answer", "note", "solution"]
    text: str = ""
    solution: Solution | None = None


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A solved question, with everything needed to see how it came about and to repeat it.

    `answer` is the final answer, None where the text gives none: a number, or the letter of a choice. `text` is the
    whole answer. `strategy` is what was asked for or chosen and `why` the reason; `solved_by` differs from it after a
    fallback, which `notes` explain. `votes` counts the answers where several were asked for. `truncated` says that the
    answer ran into the limit on tokens. `usage` counts tokens by role, `seconds` is wall-clock time from the start of
    the work on this question; both are those of all votes together. The `digests` are SHA-256 of the files and of the
    prompt texts. Where a calculation was computed, `arithmetic` solved it, and `usage`, `models` and `digests` are
    empty: no model took part. `offloaded_layers` counts the layers that went to the `device`.
    """

    id: str | None = None
    question: str
    choices: Mapping[str, str] = field(default_factory=dict)
    strategy: str
    why: str
    solved_by: str
    notes: tuple[str, ...] = ()
    guidance: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    text: str
    answer: str | None
    votes: Mapping[str, int] = field(default_factory=dict)
    truncated: bool
    seed: int
    usage: Mapping[str, Usage]
    seconds: float
    models: Mapping[str, str]
    digests: Mapping[str, str]
    device: str
    offloaded_layers: int

    @property
    def decoded(self) -> int:
        """Tokens decoded by all roles together."""
        return sum(usage.decoded for usage in self.usage.values())

    def to_dict(self) -> dict[str, Any]:
        """The solution as JSON-able values."""
        return dataclasses.asdict(self)
