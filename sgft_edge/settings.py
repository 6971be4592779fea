"""How questions are to be solved."""

from __future__ import annotations

from dataclasses import dataclass, field

from sgft_edge.errors import InputError
from sgft_edge.sampling import Sampling

STRATEGIES = ("auto", "direct", "cot", "program", "sg", "exact")
PLANS = ("first", "stepwise")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one question; `max_tokens` bounds the decoded tokens of a free answer."""

    strategy: str = "auto"
    plan: str = "first"
    max_tokens: int = 512
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InputError(f"strategy: expected one of {', '.join(STRATEGIES)}, found {self.strategy!r}")
        if self.plan not in PLANS:
            raise InputError(f"plan: expected one of {', '.join(PLANS)}, found {self.plan!r}")
        if self.max_tokens < 1:
            raise InputError(f"max_tokens: expected at least 1, found {self.max_tokens}")
