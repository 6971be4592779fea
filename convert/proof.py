"""What a check found: the shape of every result of `verify`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What an export must hold to. Relative errors are those of `relative_error`.

    Measured on SmolLM2 and Qwen2.5-Coder-0.5B: F32 3e-6 (with Gemma 3, whose GELU is a half-precision table in
    llama.cpp, 3e-4), F16 3e-3, BF16 2e-2; a quantized file of 4 bits and more
    has a divergence below 0.2 and agrees on at least 0.8 of the tokens.
    """

    f32_error: float = 1e-3
    f16_error: float = 1e-2
    bf16_error: float = 5e-2
    min_change: float = 1e-4
    max_kld: float = 1.0
    min_agreement: float = 0.5

    def error(self, type_name: str) -> float:
        """The largest relative error of logits from weights in this type."""
        return {"F32": self.f32_error, "F16": self.f16_error}.get(type_name, self.bf16_error)


@dataclass(frozen=True)
class Check:
    """One statement about the export, whether it holds, and what was found."""

    name: str
    passed: bool
    found: str
    expected: str


@dataclass(frozen=True)
class Quantized:
    """A file against the unquantized model on the same texts.

    `kld` is the mean Kullback-Leibler divergence in nats, `agreement` the share of positions with the same most
    likely token, `perplexity` that of the texts; `sample` is what the file writes after the first prompt.
    """

    file: str
    type: str
    bytes: int
    types: Mapping[str, int]
    bits_per_weight: float
    kld: float
    agreement: float
    perplexity: float
    sample: str


@dataclass(frozen=True)
class Proof:
    """All that was checked; `reference_perplexity` is the unquantized model's, `positions` how many tokens counted."""

    checks: tuple[Check, ...] = ()
    quantized: tuple[Quantized, ...] = ()
    reference_perplexity: float | None = None
    positions: int = 0

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]
