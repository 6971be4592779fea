"""A teacher's answers, each asked for with patience, paid for once, and kept in a journal."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from sgft_edge.errors import InputError
from sgft_edge.host.journal import Journal
from sgft_edge.reasoning.question import Question
from train.teacher import Answer, NoAnswer, Teacher

RETRIES = 6  # of one request, after 1, 2, 4, ... seconds, or more where the endpoint asks for that
LONGEST_WAIT = 600.0  # seconds
GIVE_UP = 10  # answers in a row that could not be had, by no fault of their questions


class Ledger:
    """Answers and verdicts by the key of a problem and the number of a try, for many threads.

    `prices` are those of a million tokens read and written; `limit` is the most that all runs together may cost, in
    the same unit. `stop` ends the asking; `trouble` says why the ledger has set it itself. Raises `InputError` where
    the journal has answers to other settings.

    Requests are repeated here and not by the client, whose waits can neither be broken off nor held to a limit.
    """

    def __init__(self, journal: Journal, teacher: Teacher, prices: tuple[float, float], limit: float | None) -> None:
        self.answers: dict[tuple[str, int], Answer] = {}
        self.verdicts: dict[tuple[str, int, str], Mapping[str, Any]] = {}
        self.tokens_in = self.tokens_out = 0
        self.stop = threading.Event()
        self.trouble: str | None = None
        self._journal, self._teacher, self._prices, self._limit = journal, teacher, prices, limit
        self._under_way: list[tuple[int, int]] = []
        self._changed = threading.Condition()
        self._failures = 0
        settings = dict(teacher.settings)
        if not journal.rows:
            journal.write({"settings": settings})
        elif (found := journal.rows[0].get("settings") or {}) != settings:
            others = [name for name in {**settings, **found} if settings.get(name) != found.get(name)]
            differing = ", ".join(f"{name} {settings.get(name)} (found {found.get(name)})" for name in others)
            raise InputError(
                f"--out: {journal.path} has answers to other settings, expected {differing}: "
                "name another file, or forget what is there with --restart"
            )
        for row in journal.rows[1:]:
            self._enter(row)

    def answer(self, key: str, number: int, question: Question) -> Answer:
        """The answer that is there, or a new one. Raises `NoAnswer`."""
        if (known := self.answers.get((key, number))) is not None:
            return known
        bound = self._teacher.bound(question)
        for attempt in range(RETRIES + 1):
            with self._reserved(bound):
                if self.stop.is_set():
                    raise NoAnswer("the run was stopped before")
                try:
                    answer = self._teacher.ask(question, number)
                except NoAnswer as e:
                    failure = e
                    if e.billed:
                        self.write(key, number, lost=str(e), tokens_in=bound[0], tokens_out=bound[1])
                else:
                    self.write(key, number, **asdict(answer))
                    self._failures = 0
                    return answer
            wait = max(2**attempt * random.uniform(0.5, 1), failure.after * random.uniform(1, 1.1))
            if not failure.again or attempt == RETRIES or wait > LONGEST_WAIT or self.stop.wait(wait):
                break
        self._failures += not failure.own
        if self._failures >= GIVE_UP and not self.stop.is_set():
            self.trouble = f"gave up after {self._failures} failures in a row, the last one: {failure}"
            self.stop.set()
        raise failure

    def write(self, key: str, number: int, **row: Any) -> None:
        """Enter an answer (`text`), a verdict (`faults`), or just tokens that may have to be paid for (`lost`)."""
        with self._changed:
            entry = {"key": key, "try": number, **row}
            self._journal.write(entry)
            self._enter(entry)

    def _enter(self, row: Mapping[str, Any]) -> None:
        key, number = row["key"], row["try"]
        if "text" in row:
            self.answers[key, number] = Answer(row["text"], row["cut"], row["tokens_in"], row["tokens_out"])
        elif "faults" in row:
            self.verdicts[key, number, row["answerer"]] = row
        self.tokens_in += row.get("tokens_in", 0)
        self.tokens_out += row.get("tokens_out", 0)

    @property
    def cost(self) -> float:
        """Of all answers, in the unit of the prices."""
        return self._cost_of(self.tokens_in, self.tokens_out)

    def __str__(self) -> str:
        tokens = f"{self.tokens_in:,} tokens read and {self.tokens_out:,} written"
        return f"{tokens} at a cost of {self.cost:.4f}" if any(self._prices) else tokens

    def _cost_of(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self._prices[0] + tokens_out * self._prices[1]) / 1e6

    @contextmanager
    def _reserved(self, bound: tuple[int, int]) -> Iterator[None]:
        """Hold back what a request can cost; waits for those under way to leave enough. Raises `NoAnswer`."""
        most = self._cost_of(*bound)
        with self._changed:
            while self._limit is not None and not self._held() + most <= self._limit:
                if not self._under_way:
                    raise NoAnswer(f"--max-cost {self._limit:g} is used up but for {self._limit - self.cost:.4f}")
                self._changed.wait()
            self._under_way.append(bound)
        try:
            yield
        finally:
            with self._changed:
                self._under_way.remove(bound)
                self._changed.notify_all()

    def _held(self) -> float:
        return self.cost + sum(self._cost_of(*bound) for bound in self._under_way)
