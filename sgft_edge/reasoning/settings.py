"""How questions are to be solved."""

from __future__ import annotations

from dataclasses import dataclass, field

from sgft_edge.errors import InputError
from sgft_edge.reasoning.schema import Form

DEFAULT_MODEL = "qwen2.5-coder-0.5b"  # what `sgft-edge models pull` fetches; what answers is chosen in default.py
FALLBACK_MODEL = "smollm2"  # where that cannot be had, or does not fit
DEFAULT_CONTEXT = 2048  # tokens
MOST_CONTEXT = 2**24  # tokens, more than any model was trained for
MOST_THREADS = 512  # of llama.cpp: GGML_MAX_N_THREADS
MOST_PARALLEL = 256  # sequences of llama.cpp: LLAMA_MAX_SEQ
MOST_VOTES = 1000
ANSWERING = ("direct", "cot", "plan", "calc", "program", "sg", "exact", "panel")
STRATEGIES = ("auto", *ANSWERING, "guidance", "chat", "complete")
PLANS = ("auto", "first", "stepwise")
OPERANDS = ("free", "grounded")
DEVICES = ("auto", "cpu", "cuda", "metal", "vulkan")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings. Temperature 0 is greedy; `top_p` and `min_p` (arXiv 2407.01082) are probabilities.

    Without a `seed` draws are those of seed 0; one that is given makes a question reproducible (see `Settings`).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("temperature", self.temperature, 0.0, 10.0),
            ("top_p", self.top_p, 0.0, 1.0),
            ("min_p", self.min_p, 0.0, 1.0),
        ):
            if not low <= value <= high:
                raise InputError(f"{name}: expected a number from {low:g} to {high:g}, found {value}", name)
        if not 0 <= self.first_draw < 2**32:
            raise InputError(f"seed: expected a whole number from 0 to {2**32 - 1}, found {self.seed}", "seed")

    @property
    def first_draw(self) -> int:
        """The seed of the random numbers."""
        return self.seed or 0


SAMPLED = Sampling(temperature=0.7, top_p=0.95)  # for another try, where a greedy text would only be repeated


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one question.

    `plan` and `operands` are for strategy `exact`: when the guidance is written (auto: as the guide's adapter was
    trained to, else first), and whether an expression may hold any number or only grounded ones (see `exact.py`).
    `max_tokens` bounds the decoded tokens of a free answer. With several `votes` a question that has a short answer is
    answered so often, and the answer that most agree on stands (see `votes.py`). A free answer ends before any text of
    `stop`. `grammar` (GBNF or a JSON schema) holds the final text: the reply of strategies `chat` and `complete`; after
    the others the answerer says once more, in that form, what was found.

    A `reproducible` question gets the same text each time, on one machine with one build, the same model files and
    settings: it is read from its beginning and alone, so that neither what was read before it nor what is worked on
    beside it moves a logit. That takes longer. None stands for: where the sampling has a seed.
    """

    strategy: str = "auto"
    plan: str = "auto"
    operands: str = "free"
    max_tokens: int = 512
    votes: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    grammar: Form | None = None
    reproducible: bool | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InputError(f"strategy: expected one of {', '.join(STRATEGIES)}, found {self.strategy!r}", "strategy")
        if self.plan not in PLANS:
            raise InputError(f"plan: expected one of {', '.join(PLANS)}, found {self.plan!r}", "plan")
        if self.operands not in OPERANDS:
            raise InputError(f"operands: expected one of {', '.join(OPERANDS)}, found {self.operands!r}", "operands")
        if self.max_tokens < 1:
            raise InputError(f"max_tokens: expected at least 1, found {self.max_tokens}", "max_tokens")
        if not 1 <= self.votes <= MOST_VOTES:
            raise InputError(f"votes: expected from 1 to {MOST_VOTES}, found {self.votes}", "votes")

    @property
    def alone(self) -> bool:
        """Whether a question is read from its beginning and alone."""
        return self.sampling.seed is not None if self.reproducible is None else self.reproducible
