"""What every strategy works with: the question and who answers it, and the steps that they have in common."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from fractions import Fraction

from sgft_edge.answers import extraction
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.backend import Completion, Request, Turn
from sgft_edge.reasoning.question import MAX_KEY, Question
from sgft_edge.reasoning.settings import SAMPLED, Sampling, Settings
from sgft_edge.reasoning.solution import Event, Step
from sgft_edge.text.arithmetic import format_value
from sgft_edge.text.gbnf import gbnf_literal
from sgft_edge.text.guidance import GRAMMAR

Writing = Generator[Request, Completion, "Draft"]  # a strategy at work on one question

GUIDANCE_TOKENS = 256
KEY_TOKENS = 4 * MAX_KEY + 1  # a character has at most four bytes, a token at least one
ANSWER_ROOM = 256  # of the tokens that a free answer may have, those that must fit before it is begun
LETTER_TOKENS = len(f"\n{prompts.ANSWER} (") + KEY_TOKENS


@dataclass(frozen=True, slots=True)
class Task:
    """One question and all that is needed to answer it."""

    question: Question
    guide: Turn
    answerer: Turn
    settings: Settings
    emit: Callable[[Event], None]

    def show(self, kind: str) -> Callable[[str], None]:
        return lambda text: self.emit(Event(kind, text)) if text else None  # type: ignore[arg-type]

    def note(self, text: str) -> str:
        self.emit(Event("note", text))
        return text


@dataclass(slots=True)
class Draft:
    """What a strategy found; `solver` makes the `Solution` of it."""

    solved_by: str
    text: str
    answer: str | None
    guidance: str = ""
    steps: tuple[Step, ...] = ()
    truncated: bool = False
    notes: list[str] = field(default_factory=list)


def stepwise(question: Question, settings: Settings) -> bool:
    """Whether strategy `exact` lets the guide see each value before it writes the next step."""
    return settings.plan == "stepwise" and question.guidance is None


def write_guidance(task: Task, sampling: Sampling) -> Generator[Request, Completion, str]:
    """The guidance that was given with the question, or one that the guide writes."""
    if task.question.guidance is not None:
        task.emit(Event("guidance", task.question.guidance.strip()))
        return task.question.guidance.strip()
    task.guide.read(prompts.guide(task.question), GUIDANCE_TOKENS)
    stop = (prompts.ANSWER,)  # a guide that gives an answer has no more steps to write
    written = yield task.guide.write(GUIDANCE_TOKENS, stop, GRAMMAR, sampling, task.show("guidance"))
    whole_lines = written.text if written.finish == "end" else written.text.rpartition("\n")[0]
    return (whole_lines or written.text).strip()


def conclude(task: Task, solved_by: str, value: Fraction) -> Writing:
    """The answer that a computed value gives: a short sentence, and for a multiple choice the letter it speaks for."""
    text = f"{prompts.ANSWER} {format_value(value)}."
    task.emit(Event("answer", text))
    if not task.question.choices:
        return Draft(solved_by, text, format_value(value))
    if letter := extraction.extract_choice(text, task.question.choices):
        return Draft(solved_by, text, letter)
    task.answerer.read(prompts.direct(task.question), len(text) + LETTER_TOKENS)
    task.answerer.force(f" {format_value(value)}.")
    return Draft(solved_by, text, (yield from _letter(task)))


def settle(task: Task, solved_by: str, text: str, truncated: bool) -> Writing:
    """The draft of a free answer, with the short answer that it gives or, of choices, the letter that it leads to."""
    answer = None
    if task.question.has_short_answer:
        answer = extraction.extract(text, task.question.choices, whole=not truncated)
    if answer is None and task.question.choices:
        answer = yield from _letter(task)
    return Draft(solved_by, text, answer, truncated=truncated)


def _letter(task: Task) -> Generator[Request, Completion, str | None]:
    """The letter of a choice, decoded under a grammar after what was written so far."""
    letters = " | ".join(gbnf_literal(f"{letter})") for letter in task.question.choices)
    task.answerer.force(f"\n{prompts.ANSWER} (")
    written = yield task.answerer.write(KEY_TOKENS, (")",), f"root ::= {letters}")
    return written.text if written.text in task.question.choices else None  # an endpoint may take no grammar


def again(sampling: Sampling) -> Sampling:
    """Settings for a second try: sampled, whatever the first one was, and from another seed."""
    return replace(SAMPLED, seed=(sampling.first_draw + 1) % 2**32)
