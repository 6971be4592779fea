"""The ways to answer a question, each a generator that yields completion requests and returns a `Draft`.

direct    the answer alone
cot       a chain of thought
plan      a plan and its execution in one free answer (https://arxiv.org/abs/2305.04091)
calc      a chain of thought whose equations are computed exactly: see `calc.py`
program   a straight-line program, computed exactly
sg        a guidance, then a free answer that follows it (https://arxiv.org/abs/2412.09906)
exact     a guidance, then one expression a step, computed exactly: see `exact.py`
panel     exact, program and calc, until two of them agree: see `panel.py`
guidance  the guidance alone, for another model to follow
chat      a reply of the answerer to a conversation
complete  a text that goes on as it stands, outside any chat template
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from fractions import Fraction

from sgft_edge import answers, prompts
from sgft_edge.arithmetic import format_value
from sgft_edge.backend import Request, Turn
from sgft_edge.engine import Completion
from sgft_edge.errors import EvaluationError
from sgft_edge.gbnf import gbnf_literal
from sgft_edge.guidance import GRAMMAR
from sgft_edge.program import run
from sgft_edge.prompts import Prompt
from sgft_edge.question import MAX_KEY, Question
from sgft_edge.settings import SAMPLED, Sampling, Settings
from sgft_edge.solution import Event, Step, worked_out

Writing = Generator[Request, Completion, "Draft"]

GUIDANCE_TOKENS = 256
PROGRAM_TOKENS = 400
KEY_TOKENS = 4 * MAX_KEY + 1  # a character has at most four bytes, a token at least one
GUIDE_PARTS = ("guide", "adapter")
_ALL_PARTS = (*GUIDE_PARTS, "answerer", "answerer_adapter", "program_adapter")
_PARTS = {
    "direct": ("answerer",),
    "cot": ("answerer",),
    "plan": ("answerer",),
    "calc": ("answerer",),
    "program": ("answerer", "program_adapter"),
    "sg": (*GUIDE_PARTS, "answerer"),
    "exact": (*GUIDE_PARTS, "answerer", "answerer_adapter"),
    "panel": _ALL_PARTS,
    "guidance": GUIDE_PARTS,
    "chat": ("answerer",),
    "complete": ("answerer",),
    "auto": _ALL_PARTS,
}
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


def parts(strategy: str, given_guidance: bool) -> tuple[str, ...]:
    """Which models and adapters a strategy uses, as a solution's `models` name them."""
    return tuple(part for part in _PARTS[strategy] if not (given_guidance and part in GUIDE_PARTS))


def stepwise(question: Question, settings: Settings) -> bool:
    """Whether strategy `exact` lets the guide see each value before it writes the next step."""
    return settings.plan == "stepwise" and question.guidance is None


def direct(task: Task) -> Writing:
    """The answer alone."""
    return (yield from _answer(task, "direct", prompts.direct(task.question), stop=("\n",)))


def cot(task: Task) -> Writing:
    """A chain of thought."""
    return (yield from _answer(task, "cot", prompts.cot(task.question)))


def plan(task: Task) -> Writing:
    """Plan-and-Solve: a plan and its execution in one free answer."""
    return (yield from _answer(task, "plan", prompts.plan_and_solve(task.question)))


def sg(task: Task, written: str | None = None) -> Writing:
    """A guidance, then a free answer that follows it."""
    if written is None:
        written = yield from write_guidance(task, task.settings.sampling)
    draft = yield from _answer(task, "sg", prompts.follow(task.question, written))
    return replace(draft, guidance=written)


def guidance(task: Task) -> Writing:
    """The guidance alone."""
    written = yield from write_guidance(task, task.settings.sampling)
    return Draft("guidance", written, None, guidance=written)


def chat(task: Task) -> Writing:
    """A reply to the conversation."""
    return (yield from _reply(task, "chat", prompts.chat(task.question)))


def complete(task: Task) -> Writing:
    """The text goes on."""
    return (yield from _reply(task, "complete", prompts.complete(task.question)))


def reshape(task: Task, draft: Draft) -> Writing:
    """What a strategy found, once more in the form that the settings' grammar holds; not shown as it comes."""
    found = worked_out(draft.steps, draft.text)
    unseen = replace(task, emit=lambda event: None)
    shaped = yield from _reply(unseen, draft.solved_by, prompts.reshape(task.question, found))
    return replace(draft, text=shaped.text, truncated=shaped.truncated)


def program(task: Task) -> Writing:
    """A straight-line program; where two have no value, a chain of thought."""
    notes = []
    for sampling in (task.settings.sampling, again(task.settings.sampling)):
        begun = task.answerer.read(prompts.program(task.question), PROGRAM_TOKENS)
        stop = ("```",) if begun else ()  # else the fence that opens the program is yet to come
        written = yield task.answerer.write(PROGRAM_TOKENS, stop, sampling=sampling, on_text=task.show("program"))
        try:
            result = run(written.text)
        except EvaluationError as e:
            notes.append(task.note(f"the program has no value ({e})"))
            continue
        value = format_value(result.value)
        steps = [Step(a.comment or a.name, a.computed, format_value(a.value)) for a in result.assignments]
        if result.returned not in ("", value, f"({value})"):
            steps.append(Step("return", result.returned, value))
        draft = yield from conclude(task, "program", result.value)
        return replace(draft, steps=tuple(steps), notes=notes)
    notes.append(task.note("no program has a value: thinking step by step instead"))
    draft = yield from cot(task)
    return replace(draft, notes=notes)


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
    if letter := answers.extract_choice(text, task.question.choices):
        return Draft(solved_by, text, letter)
    task.answerer.read(prompts.direct(task.question), len(text) + LETTER_TOKENS)
    task.answerer.force(f" {format_value(value)}.")
    return Draft(solved_by, text, (yield from _letter(task)))


def _answer(task: Task, solved_by: str, prompt: Prompt, stop: tuple[str, ...] = ()) -> Writing:
    letter = LETTER_TOKENS if task.question.choices else 0
    begun = task.answerer.read(prompt, min(task.settings.max_tokens, ANSWER_ROOM) + letter)
    limit = min(task.settings.max_tokens, task.answerer.room - letter)
    task.show("answer")(begun)
    stop += task.settings.stop
    written = yield task.answerer.write(limit, stop, sampling=task.settings.sampling, on_text=task.show("answer"))
    return (yield from settle(task, solved_by, f"{begun}{written.text}".strip(), written.finish == "length"))


def settle(task: Task, solved_by: str, text: str, truncated: bool) -> Writing:
    """The draft of a free answer, with the short answer that it gives or, of choices, the letter that it leads to."""
    answer = None
    if task.question.has_short_answer:
        answer = answers.extract(text, task.question.choices, whole=not truncated)
    if answer is None and task.question.choices:
        answer = yield from _letter(task)
    return Draft(solved_by, text, answer, truncated=truncated)


def _reply(task: Task, solved_by: str, prompt: Prompt) -> Writing:
    """A text that is no short answer, under the settings' grammar if there is one."""
    settings = task.settings
    task.answerer.read(prompt, min(settings.max_tokens, ANSWER_ROOM))
    written = yield task.answerer.write(
        min(settings.max_tokens, task.answerer.room),
        settings.stop,
        settings.grammar,
        settings.sampling,
        task.show("answer"),
    )
    return Draft(solved_by, written.text, None, truncated=written.finish == "length")


def _letter(task: Task) -> Generator[Request, Completion, str | None]:
    """The letter of a choice, decoded under a grammar after what was written so far."""
    letters = " | ".join(gbnf_literal(f"{letter})") for letter in task.question.choices)
    task.answerer.force(f"\n{prompts.ANSWER} (")
    written = yield task.answerer.write(KEY_TOKENS, (")",), f"root ::= {letters}")
    return written.text if written.text in task.question.choices else None  # an endpoint may take no grammar


def again(sampling: Sampling) -> Sampling:
    """Settings for a second try: sampled, whatever the first one was, and from another seed."""
    return replace(SAMPLED, seed=(sampling.first_draw + 1) % 2**32)
