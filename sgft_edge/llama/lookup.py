"""Prompt lookup: what followed the last two tokens where they stood before is a guess at what comes next.

Answers repeat the numbers and phrases of their question, so a few guessed tokens are read in one batch with the last
decoded one, and those that the model would have chosen itself are kept
(https://github.com/apoorvumang/prompt-lookup-decoding). A larger batch takes longer: an account of what guesses have
cost and saved stops them where a text does not repeat itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_CREDIT = 1.0  # decode calls that guesses may lose in a text
_CREDIT_PER_TOKEN = 0.01  # and more of them in a longer one


@dataclass(frozen=True, slots=True)
class Drafting:
    """At most `tokens` are guessed at once; a batch with so many takes `cost` times as long as one without."""

    tokens: int
    cost: float

    def cost_of(self, guessed: int) -> float:
        """Of a batch with fewer guesses; the time beyond the first token grows with their number."""
        return 1 + (self.cost - 1) * guessed / self.tokens


class Lookup:
    """The tokens of one text so far, and where each pair of them stood last."""

    def __init__(self, drafting: Drafting) -> None:
        self._drafting = drafting
        self._tokens: list[int] = []
        self._after: dict[tuple[int, int], int] = {}
        self._balance = _CREDIT

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, tokens: Iterable[int]) -> None:
        """The text goes on with these tokens."""
        for token in tokens:
            if len(self._tokens) > 1:
                self._after[self._tokens[-2], self._tokens[-1]] = len(self._tokens)
            self._tokens.append(token)
            self._balance += _CREDIT_PER_TOKEN

    def guess(self, most: int) -> list[int]:
        """At most `most` tokens that may come next; none where the text has not been here, or guesses lose too much."""
        at = self._after.get((self._tokens[-2], self._tokens[-1])) if len(self._tokens) > 1 else None
        if at is None:
            return []
        guess = self._tokens[at : at + min(most, self._drafting.tokens)]
        return guess if self._balance >= self._drafting.cost_of(len(guess)) - 1 else []

    def settle(self, guessed: int, right: int) -> None:
        """Enter what a guess has cost and saved, in decode calls."""
        self._balance += right - (self._drafting.cost_of(guessed) - 1)
