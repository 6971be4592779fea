"""A model in a role, and its turn at one question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sgft_edge.llama.engine import Engine, Request, Sequence
from sgft_edge.llama.model import Adapter
from sgft_edge.llama.templates import ChatTemplate
from sgft_edge.llama.tokens import prompt_tokens
from sgft_edge.reasoning.backend import Usage
from sgft_edge.reasoning.prompts import Prompt
from sgft_edge.reasoning.schema import Form, JsonSchema
from sgft_edge.reasoning.settings import Sampling


@dataclass(frozen=True, slots=True)
class LocalRole:
    """Who writes: an engine's model, its chat template, and adapters by the tasks that they are on for."""

    name: str
    engine: Engine
    template: ChatTemplate
    adapters: Mapping[str, Adapter] = field(default_factory=dict)

    def adapter_for(self, task: str) -> Adapter | None:
        """What is on while a prompt of this task is read and answered."""
        return self.adapters.get(task)

    def shares_weights_with(self, other: object, task: str) -> bool:
        if not isinstance(other, LocalRole) or self.engine is not other.engine:
            return False
        return self.adapter_for(task) is other.adapter_for(task)

    def turn(self, seat: Sequence, alone: bool = False) -> LocalTurn:
        seat.alone = alone
        return LocalTurn(self, seat)

    def require_grammar(self) -> None:
        """An engine holds any text to a grammar."""

    def hold(self, schema: JsonSchema) -> None:
        """Get ready to hold a text to a schema. Raises `InputError` where none can be."""
        self.engine.hold(schema)

    def require_interruption(self) -> None:
        """An engine goes on after any text."""

    def tokens(self, prompt: Prompt) -> tuple[list[int], int]:
        """The prompt's token ids, and how many of them come before the question."""
        return prompt_tokens(self.engine.model, self.template, prompt)


class LocalTurn:
    """A role's work on one sequence; several roles of one engine may take turns on the same sequence."""

    def __init__(self, role: LocalRole, sequence: Sequence) -> None:
        self.role = role
        self.usage = Usage()
        self._sequence = sequence

    def shares_text_with(self, other: object) -> bool:
        """Whether what one writes stands before the other as well."""
        return isinstance(other, LocalTurn) and self._sequence is other._sequence

    def read(self, prompt: Prompt, reserve: int) -> str:
        """Take up a prompt, with room for `reserve` tokens after it; returns how the answer begins.

        Raises `ContextOverflow`.
        """
        tokens, fixed = self.role.tokens(prompt)
        adapter = self.role.adapter_for(prompt.task)
        self._sequence.begin(tokens, adapter, self.usage, fixed, reserve, durable=not prompt.private)
        return prompt.answer_prefix

    @property
    def room(self) -> int:
        """Tokens that still fit after what was read and written, the first sampled one aside."""
        return self._sequence.room + 1

    def force(self, text: str) -> None:
        """Write a text that is already known. Raises `ContextOverflow`."""
        self._sequence.usage = self.usage
        self._sequence.append(text)

    def write(
        self,
        max_tokens: int,
        stop: tuple[str, ...] = (),
        grammar: Form | None = None,
        sampling: Sampling | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Request:
        """Ask for a completion; a strategy yields this and is sent the `Completion`."""
        self._sequence.usage = self.usage
        return self._sequence.complete(max_tokens, stop, grammar, sampling, on_text)
