"""Strategies driven by scripted models: every path, without a model's moods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sgft_edge.reasoning.backend import Completion
from sgft_edge.reasoning.prompts import Prompt
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Settings
from sgft_edge.reasoning.solution import Event
from sgft_edge.reasoning.task import Draft, Task

QUESTION = Question("A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?")


PLAN = "1. Find the money from all bikes.\n2. Find what is left."


@dataclass
class Script:
    """A turn whose completions are known, without what stopped them; `text` is what stands after its last prompt."""

    replies: list[str | Completion]
    text: str = ""
    prompts: list[Prompt] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    room: int = 2000

    def read(self, prompt: Prompt, reserve: int) -> str:
        self.prompts.append(prompt)
        self.text = ""
        return prompt.answer_prefix

    def force(self, text: str) -> None:
        self.text += text

    def shares_text_with(self, other: Script) -> bool:
        return self is other

    def write(
        self,
        max_tokens: int,
        stop: tuple[str, ...] = (),
        grammar: str | None = None,
        sampling: object = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Script:
        self.asked.append({"sampling": sampling, "grammar": grammar})
        return self

    def next(self) -> Completion:
        reply = self.replies.pop(0)
        done = reply if isinstance(reply, Completion) else Completion(reply, 1, "stop")
        self.text += done.text
        return done


def solve(
    strategy: Callable[[Task], Any],
    guide: list[str | Completion],
    answerer: list[str | Completion],
    question: Question = QUESTION,
    one: bool = False,
    **settings: Any,
) -> tuple[Draft, Script, Script, list[Event]]:
    """Run a strategy to its end; `one` script plays both roles."""
    g = Script(guide)
    a = g if one else Script(answerer)
    events: list[Event] = []
    steps = strategy(Task(question, g, a, Settings(**settings), events.append))  # type: ignore[arg-type]
    try:
        turn = next(steps)
        while True:
            turn = steps.send(turn.next())
    except StopIteration as end:
        assert not g.replies
        assert not a.replies
        return end.value, g, a, events


def whole(text: str) -> Completion:
    return Completion(text, 1, "end")
