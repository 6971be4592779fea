"""A conversation, and the question that its last message asks.

Guide and answerer read one question and nothing else, so what a follow-up refers to is put before it: "And with 7
bikes?" becomes the problem that it varies, the answer to that, and the follow-up. A greeting or a plain request is no
question to plan for: the answerer replies to it with the whole conversation in view.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter

from sgft_edge.answers import extraction
from sgft_edge.calculations.calculation import calculation_in
from sgft_edge.errors import InputError
from sgft_edge.reasoning.computed import calculation_of
from sgft_edge.reasoning.prompts import ANSWER
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.routing import asks, asks_quantity, is_problem
from sgft_edge.text.numerals import numbers_in

Message = tuple[str, str]
ROLES = ("system", "user", "assistant")

_FOLLOWS = re.compile(
    r"^\W*(?:and|but|so|then|now|what if|what about|how about|what would|if|suppose|instead|same|again|with|for)\b"
    r"|\b(?:instead|again|the same|as before|this time|it|they|them|those|these|that)\b",
    re.IGNORECASE,
)


def question_of(messages: Sequence[Message], choices: Mapping[str, str] | None = None) -> Question:
    """The question that the last message asks: what it refers to put before it, the conversation as its history.

    Raises `InputError` for messages that are no conversation which ends with the user's.
    """
    said = _in_turn(messages)
    *before, (_, last) = said
    question = Question(last, choices or {}, history=tuple(before))
    begun = _problem(before)
    if begun is None or not _goes_on(last):
        return question
    return replace(question, text="\n".join((*_worked_through(before[begun:]), last)))


def strategy_for(messages: Sequence[Message], question: Question, wanted: str) -> str:
    """`chat` where nothing is to be worked out and nobody asked for a strategy, else what was wanted."""
    last = _in_turn(messages)[-1][1]
    problem = question.choices or question.text.strip() != last.strip() or is_problem(last) or calculation_of(question)
    return "chat" if wanted == "auto" and not problem else wanted


def _in_turn(messages: Sequence[Message]) -> list[Message]:
    """The messages as chat templates take them: one system message, first; then user and assistant in turn.

    Neighbours of one role are joined, and system messages wherever they stand. An assistant may begin: it greets.
    """
    for role, _ in messages:
        if role not in ROLES:
            raise InputError(
                f"messages: expected one of the roles {', '.join(ROLES)}, found {role[:40]!r}: change it", "messages"
            )
    in_order = sorted(messages, key=lambda message: message[0] != "system")
    turns = itertools.groupby(in_order, key=itemgetter(0))
    merged = [(role, "\n\n".join(content for _, content in turn)) for role, turn in turns]
    if not merged or merged[-1][0] != "user":
        raise InputError("messages: expected the last one to be the user's: add what is asked", "messages")
    return merged


def _problem(messages: Sequence[Message]) -> int | None:
    """Where the last problem stands that needs nothing before it."""
    places = [i for i, (role, content) in enumerate(messages) if role == "user" and is_problem(content)]
    return places[-1] if places else None


def _goes_on(text: str) -> bool:
    """Whether a message asks to go on with a problem."""
    if calculation_in(text):
        return False
    if is_problem(text) and not re.match(r"\W*(?:and|but|what if|what about|how about|instead)\b", text, re.IGNORECASE):
        return False
    return bool(asks(text) and _FOLLOWS.search(text) and (numbers_in(text) or asks_quantity(text)))


def _worked_through(messages: Sequence[Message]) -> list[str]:
    """A problem, its follow-ups, and of the replies the final answers alone."""
    lines = []
    for role, content in messages:
        if role == "user":
            lines.append(content.strip())
        elif (number := extraction.extract(content, {}, whole=True)) is not None:
            lines.append(f"{ANSWER} {number}.")
    return lines
