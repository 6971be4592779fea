"""A conversation with a solver: what was said, what still fits before the model, and how it is answered."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sgft_edge.errors import ContextOverflow, InputError
from sgft_edge.host.files import read_bounded, refusal, write_atomically
from sgft_edge.reasoning.conversation import Message, question_of, strategy_for
from sgft_edge.reasoning.settings import SAMPLED, Settings
from sgft_edge.reasoning.solution import Event, Solution, worked_out

if TYPE_CHECKING:
    from sgft_edge.solver import Solver

_FORMAT = "sgft-edge conversation 1"


@dataclass(slots=True)
class Session:
    """A conversation under way.

    `turns` are the user's messages and the assistant's replies in turn, whole; the first `forgotten` of them are no
    longer put before the model, because they do not fit. `solutions` are those of this session.
    """

    solver: Solver
    settings: Settings
    system: str = ""
    turns: list[Message] = field(default_factory=list)
    forgotten: int = 0
    solutions: list[Solution] = field(default_factory=list)
    _stopped: str | None = None
    _tries: int = 0

    def ask(self, text: str) -> Generator[Event]:
        """Answer a message; the last event brings the solution. Where it fails or is closed, nothing was said.

        Where the conversation outgrows the context window, the oldest turns are left out, and a `note` says so.
        Raises what `Solver.solve` raises; `ContextOverflow` where the message alone is too long.
        """
        self._tries = 0
        return self._answer(self.turns, text, self.settings)

    def retry(self) -> Generator[Event]:
        """Answer the last message anew; one that was answered is sampled, since it would only be repeated."""
        if self._stopped is not None:
            return self.ask(self._stopped)
        if not self.turns:
            raise InputError("/retry: expected a message before it, found none: ask something first")
        *before, (_, text), _ = self.turns
        self._tries += 1
        sampling = self.settings.sampling
        drawn = sampling if sampling.temperature > 0 else SAMPLED
        anew = replace(drawn, seed=(sampling.first_draw + self._tries) % 2**32)
        return self._answer(before, text, replace(self.settings, sampling=anew, reproducible=self.settings.alone))

    def clear(self) -> None:
        """Begin a new conversation."""
        self.turns, self.forgotten, self._stopped = [], 0, None

    def save(self, path: Path) -> None:
        """Write the conversation as JSON. Raises `InputError`, or `SgftError` for a full disk."""
        kept = {"format": _FORMAT, "system": self.system, "turns": self.turns}
        try:
            write_atomically(path, json.dumps(kept, ensure_ascii=False, indent=1) + "\n", errors="replace")
        except OSError as e:
            raise refusal(f"/save: cannot write {path}", e) from e

    def load(self, path: Path) -> None:
        """Go on with a saved conversation. Raises `InputError` for a file that holds none; then nothing changes."""
        try:
            kept = json.loads(read_bounded(path))
            if kept["format"] != _FORMAT:
                raise ValueError(f"its format is {kept['format']!r}")
            turns = [(str(role), str(content)) for role, content in kept["turns"]]
            if [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2):
                raise ValueError("its turns are not the user's and the assistant's in turn")
            system = str(kept["system"])
        except OSError as e:
            raise InputError(f"/load: cannot read {path}: {e.strerror or e}") from e
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise InputError(
                f"/load: expected a conversation that /save wrote in {path}, found another file ({e})"
            ) from e
        self.clear()
        self.system, self.turns = system, turns

    def _answer(self, before: list[Message], text: str, settings: Settings) -> Generator[Event]:
        self._stopped = text
        forgotten = min(self.forgotten, len(before))
        system = [("system", self.system)] if self.system else []
        while True:
            messages = [*system, *before[forgotten:], ("user", text)]
            question = question_of(messages)
            strategy = strategy_for(messages, question, settings.strategy)
            try:
                with closing(self.solver.stream(question, replace(settings, strategy=strategy))) as events:
                    for event in events:
                        if event.solution is not None:
                            reply = worked_out(event.solution.steps, event.solution.text)
                            self.turns = [*before, ("user", text), ("assistant", reply)]
                            self.forgotten, self._stopped = forgotten, None
                            self.solutions.append(event.solution)
                        yield event
                return
            except ContextOverflow:
                if forgotten >= len(before):
                    raise
                forgotten += 2
                yield Event("note", "the oldest turns no longer fit into the context window and are left out")
