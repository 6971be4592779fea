"""What is asked: a text, and for multiple choice the options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sgft_edge.errors import InputError
from sgft_edge.text.numerals import numbers_in

MAX_CHARACTERS = 200_000
MAX_HISTORY = 1_000_000  # characters of a conversation before the question
MAX_KEY = 4  # characters of a choice's letter


@dataclass(frozen=True, slots=True)
class Question:
    """A question: `choices` maps an option's letter to its text, `guidance` is one given from outside.

    `history` is the conversation before it for strategy `chat`, as (role, content) pairs: a system message first, if
    any, then user and assistant in turn. `id` comes back in the solution. Raises `InputError` for what cannot be asked.
    """

    text: str
    choices: Mapping[str, str] = field(default_factory=dict)
    guidance: str | None = None
    id: str | None = None
    history: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise InputError("question: expected a text, found nothing: write the question out", "question")
        if len(self.text) > MAX_CHARACTERS:
            raise InputError(
                f"question: expected at most {MAX_CHARACTERS} characters, found {len(self.text)}: shorten it",
                "question",
            )
        said = [content for _, content in self.history]
        if (length := sum(map(len, said))) > MAX_HISTORY:
            raise InputError(
                f"messages: expected at most {MAX_HISTORY} characters before the last, found {length}: leave some out",
                "messages",
            )
        for text in (self.text, *self.choices, *self.choices.values(), self.guidance or "", *said):
            if isinstance(text, str) and any("\ud800" <= ch <= "\udfff" for ch in text):
                raise InputError(
                    "question: expected Unicode text, found bytes that are not UTF-8: convert it first", "question"
                )
        for letter, option in self.choices.items():
            if not (isinstance(letter, str) and letter.isalnum() and len(letter) <= MAX_KEY) or not (
                isinstance(option, str) and option.strip()
            ):
                raise InputError(
                    f"choices: expected letters and texts such as A=yes, found {letter!r}={option!r}: correct them",
                    "choices",
                )
        if len(self.choices) == 1:
            raise InputError("choices: expected at least two, found one: add the others or leave it out", "choices")

    @property
    def is_numeric(self) -> bool:
        """Whether the text has numbers, in digits or in words."""
        return bool(numbers_in(self.text))

    @property
    def has_short_answer(self) -> bool:
        """Whether the answer is a number or a letter, which can be told to be another's."""
        return bool(self.choices) or self.is_numeric

    @property
    def with_choices(self) -> str:
        """The question as the models read it, its options below it."""
        options = "".join(f"\n({letter}) {text.strip()}" for letter, text in self.choices.items())
        return self.text.strip() + options


def parse_choices(given: Any) -> dict[str, str]:
    """Options from `{"A": "yes"}`, `["yes", "no"]` or `A=yes;B=no`; numbers among them are text."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {letter: _as_text(option) for letter, option in given.items()}
    if isinstance(given, str):
        parts = [part.strip() for part in given.split(";") if part.strip()]
        if all("=" in part for part in parts):
            return {k.strip(): v.strip() for k, v in (part.split("=", 1) for part in parts)}
        given = parts
    if isinstance(given, list | tuple) and len(given) <= 26:
        return {chr(ord("A") + i): _as_text(option) for i, option in enumerate(given)}
    raise InputError(
        f"choices: expected texts such as 'A=yes;B=no', found {str(given)[:60]!r}: correct them", "choices"
    )


def _as_text(option: Any) -> Any:
    """A number as the text that it is; anything else as it came."""
    return str(option) if isinstance(option, int | float) and not isinstance(option, bool) else option
