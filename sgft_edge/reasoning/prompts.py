"""Every text that the package puts before a model.

Guide and answerer of strategy `exact` read the same tokens up to the end of the
question: a system message that shows the format by examples, and the question;
only then comes what a role is asked to do. So the system message is read once for all questions,
and the question once for both roles where they share weights.

`digest` names a version of these texts; `guide_digest` one of those that an adapter is trained with.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from sgft_edge.reasoning.question import Question

SYSTEM = """\
You solve problems in as few numbered steps as needed, in this format:

Problem: How many minutes are 4 hours?
1. Find the minutes, from the minutes in an hour.
 Expression: 4 * 60 = 240
The answer is 240.

Problem: A lamp costs 80 euros, 15% off. What do I pay?
1. Find the price after the discount, as what is left of the hundred percent.
 Expression: 80 * (100 - 15) / 100 = 68
The answer is 68.

Problem: After a bus let 9 people off at 2 stops, 25 people are in it. How many were in it before?
1. Find the people before, from those in it now and those who got off.
 Expression: 25 + 9 = 34
The answer is 34.

Problem: Mia has 3 boxes of 12 pens and gives 10 pens away. How many are left?
1. Find the pens in all boxes.
 Expression: 3 * 12 = 36
2. Find the pens that are left.
 Expression: 36 - 10 = 26
The answer is 26."""
PLAIN_SYSTEM = "You solve problems step by step."

PLAN = "Write the solution plan: 1 to 6 numbered steps in words, as few as needed, without computing anything."
FOLLOW = "Now carry out the plan step by step. End with 'The answer is' and the final answer."
THINK = "Think step by step. End with 'The answer is' and the final answer."
PLAN_AND_SOLVE = (
    "First understand the problem and devise a plan to solve it. Then carry out the plan step by step. "
    "End with 'The answer is' and the final answer."
)
DIRECT = "Reply with the final answer only."
PROGRAM = (
    "Write a Python function solution() that computes the answer. "
    "Use only assignments and a return: no comments, no docstring, no imports."
)

# The parts that the runtime writes itself while it executes a guidance.
EXPRESSION = "\n Expression: "
EQUALS = " ="
NOTHING = "none"  # stands instead of an expression where a step has nothing to compute
ANSWER = "The answer is"

AS_ASKED = "Give that answer in the form that was asked for."

GUIDE, EXECUTE, WRITE_PROGRAM = "guide", "execute", "program"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation, (role, content) pairs that end with the user's, and the forced start of the answer.

    Without messages, `answer_prefix` is the whole text, outside any chat template.
    `task` names what an adapter may be trained to do with it; empty for prompts of the base alone.
    `private`: what stands before the question is the user's own, and is kept nowhere.
    """

    messages: tuple[tuple[str, str], ...]
    answer_prefix: str = ""
    task: str = ""
    private: bool = False


def guide(question: Question) -> Prompt:
    """Ask for a solution guidance."""
    return Prompt((("system", SYSTEM), ("user", f"{question.with_choices}\n\n{PLAN}")), task=GUIDE)


def execute(question: Question) -> Prompt:
    """Ask for the expressions of a guidance, whose steps the runtime writes."""
    return Prompt((("system", SYSTEM), ("user", question.with_choices)), task=EXECUTE)


def follow(question: Question, guidance: str) -> Prompt:
    """Ask for a free answer that follows a guidance: the paper's answerer.

    It reads the plain system message: the format of the other one costs its free answers accuracy.
    """
    asked = ("user", f"{question.with_choices}\n\n{PLAN}")
    return Prompt((("system", PLAIN_SYSTEM), asked, ("assistant", guidance), ("user", FOLLOW)))


def cot(question: Question) -> Prompt:
    """Ask for a chain of thought (https://arxiv.org/abs/2205.11916)."""
    return Prompt((("system", PLAIN_SYSTEM), ("user", f"{question.with_choices}\n\n{THINK}")))


def plan_and_solve(question: Question) -> Prompt:
    """Ask for a plan and its execution in one answer (https://arxiv.org/abs/2305.04091)."""
    return Prompt((("system", PLAIN_SYSTEM), ("user", f"{question.with_choices}\n\n{PLAN_AND_SOLVE}")))


def direct(question: Question) -> Prompt:
    """Ask for the answer alone."""
    return Prompt((("system", PLAIN_SYSTEM), ("user", f"{question.with_choices}\n\n{DIRECT}")), ANSWER)


def program(question: Question) -> Prompt:
    """Ask for a straight-line program (https://arxiv.org/abs/2211.10435)."""
    asked = ("user", f"{question.with_choices}\n\n{PROGRAM}")
    return Prompt((("system", PLAIN_SYSTEM), asked), "```python\ndef solution():\n", WRITE_PROGRAM)


def chat(question: Question) -> Prompt:
    """The conversation as it stands."""
    return Prompt((*question.history, ("user", question.with_choices)), private=True)


def complete(question: Question) -> Prompt:
    """A text that goes on as it stands."""
    return Prompt((), question.text)


def reshape(question: Question, found: str) -> Prompt:
    """Ask for what was found in another form, which a grammar holds."""
    return Prompt((*chat(question).messages, ("assistant", found), ("user", AS_ASKED)), private=True)


def digest() -> str:
    """SHA-256 of all prompts that solve a question: a solution names it."""
    alone = (ask(_ANY) for ask in (cot, plan_and_solve, direct, program))
    return _digest(guide(_ANY), execute(_ANY), follow(_ANY, "{guidance}"), *alone)


def guide_digest(programs: bool = False) -> str:
    """SHA-256 of the prompts that an adapter is trained with, which names it; `programs`: it writes these as well."""
    return _digest(guide(_ANY), execute(_ANY), *([program(_ANY)] if programs else []))


_ANY = Question("{question}", {"A": "{choice}", "B": "{choice}"})


def _digest(*prompts: Prompt) -> str:
    texts = [[prompt.messages, prompt.answer_prefix] for prompt in prompts]
    return hashlib.sha256(json.dumps([texts, EXPRESSION, EQUALS, NOTHING, ANSWER]).encode()).hexdigest()
