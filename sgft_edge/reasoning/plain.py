"""The strategies that let a model write and read what it wrote: answers, chains of thought, programs, replies."""

from __future__ import annotations

from dataclasses import replace

from sgft_edge.errors import EvaluationError
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.prompts import Prompt
from sgft_edge.reasoning.solution import Step, worked_out
from sgft_edge.reasoning.task import (
    ANSWER_ROOM,
    LETTER_TOKENS,
    Draft,
    Task,
    Writing,
    again,
    conclude,
    settle,
    write_guidance,
)
from sgft_edge.text.arithmetic import format_value
from sgft_edge.text.program import run

PROGRAM_TOKENS = 400


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


def reshape(task: Task, draft: Draft) -> Writing:
    """What a strategy found, once more in the form that the settings' grammar holds; not shown as it comes."""
    found = worked_out(draft.steps, draft.text)
    unseen = replace(task, emit=lambda event: None)
    shaped = yield from _reply(unseen, draft.solved_by, prompts.reshape(task.question, found))
    return replace(draft, text=shaped.text, truncated=shaped.truncated)


def _answer(task: Task, solved_by: str, prompt: Prompt, stop: tuple[str, ...] = ()) -> Writing:
    letter = LETTER_TOKENS if task.question.choices else 0
    begun = task.answerer.read(prompt, min(task.settings.max_tokens, ANSWER_ROOM) + letter)
    limit = min(task.settings.max_tokens, task.answerer.room - letter)
    task.show("answer")(begun)
    stop += task.settings.stop
    written = yield task.answerer.write(limit, stop, sampling=task.settings.sampling, on_text=task.show("answer"))
    return (yield from settle(task, solved_by, f"{begun}{written.text}".strip(), written.finish == "length"))


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
