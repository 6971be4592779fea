"""Every text that the package puts before a model.

Guide and answerer read the same tokens up to the end of the question: the
system message, one worked example for each role, and the question; only then
comes what this role is asked to do. So the example part is read once for all
questions, and the question once for both roles where they share weights.

`digest` names a version of these texts: an adapter is trained with one of them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from sgft_edge.question import Question

SYSTEM = "You solve problems step by step."

PLAN = "Write the solution plan: 2 to 6 numbered steps in words, without computing anything."
EXECUTE = "Carry out the steps, one expression each."
FOLLOW = "Now carry out the plan step by step. End with 'The answer is' and the final answer."
THINK = "Think step by step. End with 'The answer is' and the final answer."
DIRECT = "Reply with the final answer only."
PROGRAM = "Write a Python function solution() that computes the answer. Use only assignments and a return, no imports."

_EXAMPLE = "A box holds 12 pens. Mia buys 3 boxes and gives 10 pens to her friends. How many pens does she have left?"
_EXAMPLE_PLAN = """\
1. Find the number of pens in all the boxes.
2. Find the number of pens left after giving some away."""
_EXAMPLE_EXECUTED = """\
1. Find the number of pens in all the boxes.
 Expression: 3 * 12 = 36
2. Find the number of pens left after giving some away.
 Expression: 36 - 10 = 26
The answer is 26."""

# The parts that the runtime writes itself while it executes a guidance.
EXPRESSION = "\n Expression: "
EQUALS = " ="
ANSWER = "The answer is"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation, (role, content) pairs that end with the user's, and the forced start of the answer."""

    messages: tuple[tuple[str, str], ...]
    answer_prefix: str = ""


def guide(question: Question) -> Prompt:
    """Ask for a solution guidance."""
    return Prompt((*_EXAMPLES, ("user", f"{question.with_choices}\n\n{PLAN}")))


def execute(question: Question) -> Prompt:
    """Ask for the expressions of a guidance, whose steps the runtime writes."""
    return Prompt((*_EXAMPLES, ("user", f"{question.with_choices}\n\n{EXECUTE}")))


def follow(question: Question, guidance: str) -> Prompt:
    """Ask for a free answer that follows a guidance: the paper's answerer."""
    asked = ("user", f"{question.with_choices}\n\n{PLAN}")
    return Prompt((*_EXAMPLES, asked, ("assistant", guidance), ("user", FOLLOW)))


def cot(question: Question) -> Prompt:
    """Ask for a chain of thought (https://arxiv.org/abs/2205.11916)."""
    return Prompt((("system", SYSTEM), ("user", f"{question.with_choices}\n\n{THINK}")))


def direct(question: Question) -> Prompt:
    """Ask for the answer alone."""
    return Prompt((("system", SYSTEM), ("user", f"{question.with_choices}\n\n{DIRECT}")), ANSWER)


def program(question: Question) -> Prompt:
    """Ask for a straight-line program (https://arxiv.org/abs/2211.10435)."""
    asked = ("user", f"{question.with_choices}\n\n{PROGRAM}")
    return Prompt((("system", SYSTEM), asked), "```python\ndef solution():\n")


_EXAMPLES = (
    ("system", SYSTEM),
    ("user", f"{_EXAMPLE}\n\n{PLAN}"),
    ("assistant", _EXAMPLE_PLAN),
    ("user", f"{_EXAMPLE}\n\n{EXECUTE}"),
    ("assistant", _EXAMPLE_EXECUTED),
)


def digest() -> str:
    """SHA-256 of all prompts for a question that stands for any."""
    question = Question("{question}", {"A": "{choice}", "B": "{choice}"})
    prompts = [guide(question), execute(question), follow(question, "{guidance}")]
    prompts += [cot(question), direct(question), program(question)]
    texts = [[prompt.messages, prompt.answer_prefix] for prompt in prompts]
    return hashlib.sha256(json.dumps([texts, EXPRESSION, EQUALS, ANSWER]).encode()).hexdigest()
