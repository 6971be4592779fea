from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgft_edge.errors import EngineError, GrammarError, InputError
from sgft_edge.llama.sampling import Sampler
from sgft_edge.reasoning.settings import Sampling

LOGITS = np.array([1.0, 3.0, 2.0, 0.0, 2.5], np.float32)


class Only:
    """A grammar that allows a set of tokens and, as llama.cpp's, must not be given another one."""

    def __init__(self, *tokens: int) -> None:
        self.tokens = tokens
        self.accepted: list[int] = []
        self.asked: list[int] = []

    def allowed(self, tokens: np.ndarray | list[int]) -> np.ndarray:
        self.asked.append(len(tokens))
        return np.isin(tokens, self.tokens)

    def accept(self, token: int) -> None:
        assert token in self.tokens, "llama.cpp would end the process here"
        self.accepted.append(token)


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    p = np.exp(logits.astype(float) / temperature)
    return p / p.sum()


def frequencies(
    sampling: Sampling, grammar: Only | None = None, logits: np.ndarray = LOGITS, n: int = 4000
) -> np.ndarray:
    sampler = Sampler(sampling, grammar)
    counts = Counter(sampler.pick(logits) for _ in range(n))
    return np.array([counts[token] / n for token in range(len(logits))])


def test_temperature_zero_is_greedy() -> None:
    sampler = Sampler(Sampling())
    assert [sampler.pick(LOGITS) for _ in range(5)] == [1] * 5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    found = frequencies(Sampling(temperature))
    np.testing.assert_allclose(found, softmax(LOGITS, temperature), atol=0.03)


def test_a_grammar_renormalises_what_it_allows() -> None:
    grammar = Only(0, 2, 3)
    expected = softmax(LOGITS) * [1, 0, 1, 1, 0]
    np.testing.assert_allclose(frequencies(Sampling(1.0), grammar), expected / expected.sum(), atol=0.03)
    assert len(grammar.accepted) == 4000


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    p = np.sort(softmax(LOGITS))[::-1]
    found = frequencies(Sampling(1.0, top_p=float(p[0] + p[1] / 2)))
    expected = softmax(LOGITS) * [0, 1, 0, 0, 1]
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.03)
    assert np.flatnonzero(frequencies(Sampling(1.0, top_p=float(p[0] - 0.01)))).tolist() == [1]


def test_min_p_is_relative_to_the_best() -> None:
    ratio = np.exp(2.0 - 3.0)
    assert np.flatnonzero(frequencies(Sampling(1.0, min_p=float(ratio - 0.01)))).tolist() == [1, 2, 4]
    assert np.flatnonzero(frequencies(Sampling(1.0, min_p=float(ratio + 0.01)))).tolist() == [1, 4]
    assert np.flatnonzero(frequencies(Sampling(1.0, min_p=1.0))).tolist() == [1]


@pytest.mark.parametrize("sampling", [Sampling(1.0, top_p=0.0), Sampling(1e-300), Sampling(5e-324)])
def test_extremes_pick_the_best(sampling: Sampling) -> None:
    with np.errstate(over="ignore"):
        assert np.flatnonzero(frequencies(sampling, n=50)).tolist() == [1]


def test_logits_of_minus_infinity_are_never_drawn() -> None:
    logits = np.where(np.arange(5) == 1, -np.inf, LOGITS).astype(np.float32)
    assert frequencies(Sampling(10.0), logits=logits)[1] == 0
    assert Sampler(Sampling()).pick(logits) == 4


def test_one_seed_one_text() -> None:
    def draw(seed: int) -> list[int]:
        sampler = Sampler(Sampling(1.0, seed=seed))
        return [sampler.pick(LOGITS) for _ in range(50)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_a_token_that_fits_is_checked_alone() -> None:
    grammar = Only(1)
    assert Sampler(Sampling(), grammar).pick(LOGITS) == 1
    assert grammar.asked == [1]


def test_greedy_finds_the_best_allowed_token_however_far_down() -> None:
    logits = np.arange(1000, dtype=np.float32)
    for tokens in [(999, 5), (998, 5), (940, 3), (5, 3), (0,)]:
        assert Sampler(Sampling(), Only(*tokens)).pick(logits) == max(tokens)


@given(st.sets(st.integers(0, 299), min_size=1), st.integers(0, 99), st.sampled_from([0.0, 0.3, 2.0]))
def test_only_what_the_grammar_allows_is_picked(allowed: set[int], seed: int, temperature: float) -> None:
    logits = np.random.default_rng(seed).normal(0, 5, 300).astype(np.float32)
    grammar = Only(*allowed)
    token = Sampler(Sampling(temperature, top_p=0.5, min_p=0.2, seed=seed), grammar).pick(logits)
    assert grammar.accepted == [token]
    if temperature == 0:
        assert token == max(allowed, key=lambda t: logits[t])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_that_allows_nothing_is_an_error(temperature: float) -> None:
    grammar = Only()
    with pytest.raises(GrammarError, match="allows no token"):
        Sampler(Sampling(temperature), grammar).pick(LOGITS)
    assert grammar.accepted == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", 10.1),
        ("top_p", 1.1),
        ("top_p", float("nan")),
        ("min_p", -1.0),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_settings_are_checked(field: str, value: float) -> None:
    with pytest.raises(InputError, match=f"^{field}: expected .*, found"):
        Sampling(**{field: value})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error(temperature: float, odd: float) -> None:
    """As of a model whose file is damaged."""
    for logits in (np.where(np.arange(5) == 3, odd, LOGITS), np.full(5, odd), np.full(5, -np.inf)):
        for grammar in (None, Only(1)):
            with pytest.raises(EngineError, match="expected numbers from the model"):
                Sampler(Sampling(temperature), grammar).pick(logits.astype(np.float32))
