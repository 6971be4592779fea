"""What strategies and the loop are given: who writes, such as a file's engine or an endpoint, and what they wrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from sgft_edge.reasoning.prompts import Prompt
from sgft_edge.reasoning.schema import Form, JsonSchema
from sgft_edge.reasoning.settings import Sampling


@dataclass(slots=True)
class Usage:
    """Tokens of one role: read or forced, sampled, taken over from a KV cache; and the decode calls it had a share in.

    `seconds` is that share in the calls' time; of an endpoint, its requests' time.
    """

    prefilled: int = 0
    decoded: int = 0
    reused: int = 0
    calls: int = 0
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Completion:
    """A decoded text without the stop string that ended it; `tokens` were sampled for it, the ending one included."""

    text: str
    tokens: int
    finish: Literal["stop", "end", "length"]
    ending: str = ""


class Request(Protocol):
    """A completion under way."""

    result: Completion | None
    error: Exception | None

    @property
    def engine(self) -> Backend: ...


class Backend(Protocol):
    """Works on as many completions at once as it has `slots`, in steps; `free` of them may be acquired now."""

    slots: int

    @property
    def free(self) -> int: ...

    @property
    def busy(self) -> bool: ...

    def acquire(self) -> Any: ...

    def submit(self, request: Any) -> None: ...

    def step(self) -> Sequence[Request]:
        """Go on a little; returns the requests that ended."""

    def close(self) -> None: ...


class Turn(Protocol):
    """A role's work on one question: it reads a prompt, and what stands after that is forced or written."""

    usage: Usage

    @property
    def room(self) -> int:
        """Tokens that may still be written."""

    def shares_text_with(self, other: object) -> bool: ...

    def read(self, prompt: Prompt, reserve: int) -> str:
        """Take up a prompt, with room for `reserve` tokens after it; returns how the answer begins."""

    def force(self, text: str) -> None: ...

    def write(
        self,
        max_tokens: int,
        stop: tuple[str, ...] = (),
        grammar: Form | None = None,
        sampling: Sampling | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Request: ...


class Role(Protocol):
    """Who writes."""

    @property
    def name(self) -> str: ...

    @property
    def engine(self) -> Backend: ...

    def turn(self, seat: Any, alone: bool = False) -> Turn:
        """A turn at a question; one that works `alone` reads and writes the same each time, where it can."""

    def shares_weights_with(self, other: object, task: str) -> bool: ...

    def require_grammar(self) -> None:
        """Raise `InputError` where no grammar can hold what it writes."""

    def hold(self, schema: JsonSchema) -> None:
        """Get ready to hold a text to a schema. Raises `InputError` where none can be."""

    def require_interruption(self) -> None:
        """Raise `InputError` where what it writes cannot be gone on with after a stop text."""
