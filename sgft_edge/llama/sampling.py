"""How the next token is picked from logits, with or without a grammar."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sgft_edge.errors import EngineError, GrammarError
from sgft_edge.reasoning.settings import Sampling

_FEW = 64  # candidates tried under the grammar before the whole vocabulary is
_COLDEST = 1e-6  # a temperature at which float32 logits differ by everything or nothing
_RAREST = 2.0**-32  # tokens so much less likely than the best are never drawn


class TokenGrammar(Protocol):
    """What the sampler asks of a grammar: see `context.Grammar`."""

    def allowed(self, tokens: Any) -> NDArray[np.bool_]: ...
    def accept(self, token: int) -> None: ...


class Sampler:
    """Picks tokens for one text; its random numbers depend on the seed alone, not on its neighbours in a batch."""

    def __init__(self, sampling: Sampling, grammar: TokenGrammar | None = None) -> None:
        self._sampling = sampling
        self._grammar = grammar
        self._rng = np.random.default_rng(sampling.first_draw)

    def pick(self, logits: NDArray[np.float32]) -> int:
        """A token for logits of shape (n_vocab,). Raises `EngineError` where the best of them is no finite number.

        Checking one token against a grammar takes microseconds, the whole
        vocabulary milliseconds: so the first choice is made without it.
        """
        choose = self._greedy if self._sampling.temperature == 0 else self._draw
        token = choose(logits)
        if self._grammar is not None:
            if not self._grammar.allowed([token])[0]:
                token = choose(self._masked(logits))
            self._grammar.accept(token)
        return token

    @staticmethod
    def _greedy(logits: NDArray[np.float32]) -> int:
        best = int(logits.argmax())  # the first NaN where there is one
        if not np.isfinite(logits[best]):
            raise EngineError(f"expected numbers from the model, found {logits[best]}: fetch or convert its file anew")
        return best

    def _draw(self, logits: NDArray[np.float32]) -> int:
        weights = np.exp((logits - logits[self._greedy(logits)]) / max(self._sampling.temperature, _COLDEST))
        tokens = np.flatnonzero(weights >= _RAREST)
        weights = weights[tokens].astype(np.float64)
        if self._sampling.min_p > 0:
            weights[weights < self._sampling.min_p * weights.max()] = 0
        if self._sampling.top_p < 1:
            order = np.argsort(-weights, kind="stable")
            until = np.cumsum(weights[order])
            before = until - weights[order]
            weights[order[before >= max(self._sampling.top_p, 1e-9) * until[-1]]] = 0
        until = np.cumsum(weights)
        return int(tokens[np.searchsorted(until, self._rng.random() * until[-1], side="right")])

    def _masked(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits with everything that the grammar refuses at minus infinity."""
        assert self._grammar is not None
        masked = np.full_like(logits, -np.inf)
        if self._sampling.temperature == 0:
            few = np.argpartition(logits, -min(_FEW, len(logits)))[-_FEW:]
            fit = few[self._grammar.allowed(few)]
            if len(fit):
                masked[fit] = logits[fit]
                return masked
        fit = np.flatnonzero(self._grammar.allowed(np.arange(len(logits), dtype=np.int32)))
        if not len(fit):
            raise GrammarError("the grammar allows no token of this vocabulary at this point")
        masked[fit] = logits[fit]
        return masked
