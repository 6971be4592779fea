"""Strategy `exact`: the models write words and expressions, the runtime computes.

The runtime walks a guidance step by step. After each step's words the answerer
decodes one arithmetic expression under a grammar; the runtime evaluates it as a
rational and writes the value behind it; the last value is the answer. With plan
`first` the guide writes the whole guidance before that; with `stepwise` it
writes each step when it has seen the values of those before.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import replace
from fractions import Fraction

from sgft_edge.errors import EvaluationError, GuidanceError
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.backend import Completion, Request, Turn
from sgft_edge.reasoning.plain import sg
from sgft_edge.reasoning.settings import Sampling
from sgft_edge.reasoning.solution import Event, Step
from sgft_edge.reasoning.task import Task, Writing, again, conclude, stepwise, write_guidance
from sgft_edge.text.arithmetic import format_value
from sgft_edge.text.chain import UNIT_FACTS, value_after
from sgft_edge.text.gbnf import expression_grammar, gbnf_literal
from sgft_edge.text.guidance import MAX_STEPS, STEP_GRAMMAR, Guidance, parse
from sgft_edge.text.numerals import numbers_in

EXPRESSION_TOKENS = 48
STEP_TOKENS = 64
_BELOW_ZERO = re.compile(
    r"(?<![0-9])[-−][0-9]|\b(?:below|minus|negative|debts?|owes?|overdra\w+|balance|account|loss|deficit"
    r"|temperatur\w*|degrees?|grad|degrés|grados|celsius|fahrenheit|sea level|unter|schulden|perte|deudas?|bajo cero)\b"
    r"|°|负|欠|零下|度",
    re.IGNORECASE,
)
_PERCENTAGE = re.compile(r"(?<![0-9.,])[0-9.,]+ ?(?:%|percent)")

Writes = Generator[Request, Completion, None]


def exact(task: Task) -> Writing:
    """Guidance and exact execution; where that fails twice, or once with a guidance that was given, strategy `sg`.

    A plan that leads below zero where nothing can be is made once more; where both do, the first one stands.
    """
    notes: list[str] = []
    guidance: str | None = None
    doubtful: Execution | None = None
    for sampling in (task.settings.sampling, again(task.settings.sampling)):
        try:
            if stepwise(task.question, task.settings):
                execution = Execution(task, (task.answerer, task.guide))
                yield from execution.plan_and_compute(sampling)
            else:
                guidance = yield from write_guidance(task, sampling)
                steps = parse(guidance)
                execution = Execution(task, (task.answerer,))
                yield from execution.compute(steps)
            if not execution.falls_below_zero:
                return (yield from _concluded(task, execution, notes))
            doubtful = doubtful or execution
            if task.question.guidance is None and doubtful is execution:
                notes.append(task.note("a value is below zero, where none can be: planning again"))
        except (GuidanceError, EvaluationError) as e:
            notes.append(task.note(f"not executed exactly: {e}"))
        if task.question.guidance is not None:
            break
    if doubtful is not None:
        return (yield from _concluded(task, doubtful, notes))
    notes.append(task.note("answering freely along the guidance instead"))
    draft = yield from sg(task, guidance)
    return replace(draft, notes=notes)


def _concluded(task: Task, execution: Execution, notes: list[str]) -> Writing:
    draft = yield from conclude(task, "exact", execution.value)
    return replace(draft, guidance=execution.guidance.text, steps=tuple(execution.steps), notes=notes)


class Execution:
    """The steps, expressions and values of one question as they are written, the same text before each of `turns`."""

    def __init__(self, task: Task, turns: tuple[Turn, ...]) -> None:
        self._task = task
        self._turns = [turns[0], *(turn for turn in turns[1:] if not turn.shares_text_with(turns[0]))]
        self.steps: list[Step] = []
        self._values: list[Fraction] = []
        for turn in self._turns:
            turn.read(prompts.execute(task.question), STEP_TOKENS + EXPRESSION_TOKENS)

    @property
    def guidance(self) -> Guidance:
        return Guidance(tuple(step.text for step in self.steps))

    @property
    def value(self) -> Fraction:
        """The last value. Raises `EvaluationError` where no step computed one."""
        if not self._values:
            raise EvaluationError("expected a step with something to compute, found none")
        return self._values[-1]

    @property
    def falls_below_zero(self) -> bool:
        """Whether a value is below zero though the question speaks of nothing that can be.

        Raises `EvaluationError` where no step computed a value.
        """
        return min(self.value, *self._values) < 0 and not _BELOW_ZERO.search(self._task.question.text)

    def compute(self, guidance: Guidance) -> Writes:
        """Carry out a guidance that is whole."""
        for number, text in enumerate(guidance.steps, start=1):
            self._force(f"{number}. {text}" if number == 1 else f"\n{number}. {text}")
            yield from self._compute(text)

    def plan_and_compute(self, sampling: Sampling) -> Writes:
        """Let the guide write a step, carry it out, and go on until the guide gives the answer."""
        guide = self._task.guide
        self._force("1.")
        for number in range(1, MAX_STEPS + 1):
            written = yield guide.write(STEP_TOKENS, ("\n",), STEP_GRAMMAR, sampling)
            if not written.text.strip() or written.finish == "length":
                raise GuidanceError(f"step {number}: expected a line of words, found {written.text[:40]!r}")
            self._force(written.text, author=guide)
            yield from self._compute(written.text.strip())
            if number == MAX_STEPS or not (yield from self._goes_on(number + 1)):
                return

    def _goes_on(self, number: int) -> Generator[Request, Completion, bool]:
        """Whether the guide has another step to write: its first token tells, the rest of the words are known."""
        step, end = f"{number}.", prompts.ANSWER
        self._force("\n")
        grammar = f"root ::= {gbnf_literal(step)} | {gbnf_literal(end)}"
        written = yield self._task.guide.write(1, grammar=grammar)
        text = step if step.startswith(written.text) else end
        self._force(written.text, author=self._task.guide)
        self._force(text[len(written.text) :])
        return text == step

    def _compute(self, text: str) -> Writes:
        """Let the answerer write the expression of the step that was just written, and write its value."""
        emit, number = self._task.emit, len(self.steps) + 1
        emit(Event("step", text))
        self._force(prompts.EXPRESSION)
        answerer = self._task.answerer
        sampling = self._task.settings.sampling
        grammar = expression_grammar(prompts.EQUALS, self._operands(text), prompts.NOTHING)
        written = yield answerer.write(EXPRESSION_TOKENS, (prompts.EQUALS, prompts.NOTHING), grammar, sampling)
        if written.finish != "stop":
            raise EvaluationError(f"the expression of step {number} does not end")
        if not written.text:
            self._force(prompts.NOTHING)
            self.steps.append(Step(text))
            return
        self._force(written.text, author=answerer)
        emit(Event("expression", written.text))
        value = value_after(written.text, self._values)
        self._values.append(value)
        self.steps.append(Step(text, written.text, format_value(value)))
        emit(Event("value", format_value(value)))
        self._force(f"{prompts.EQUALS} {format_value(value)}")

    def _operands(self, words: str) -> list[str] | None:
        """The numbers that the expression of a step may hold, as text; None where it may hold any.

        Grounded operands are the numbers of the question and of the steps, their hundredths where they are
        percentages, earlier values, and unit facts.
        """
        if self._task.settings.operands == "free":
            return None
        text = "\n".join((self._task.question.text, *(step.text for step in self.steps), words))
        numbers = [*numbers_in(text), *self._values]
        numbers += [part / 100 for match in _PERCENTAGE.findall(text) for part in numbers_in(match)]
        return [*dict.fromkeys(format_value(abs(number)) for number in numbers), *UNIT_FACTS]

    def _force(self, text: str, author: Turn | None = None) -> None:
        """Write a text before every role but the one that has just decoded it."""
        for turn in self._turns:
            if author is None or not turn.shares_text_with(author):
                turn.force(text)
