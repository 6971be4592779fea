"""How sure a count of problems is: of one strategy, and of two on the same problems."""

from __future__ import annotations

from math import comb, sqrt

Z95 = 1.959963984540054  # quantile of the normal distribution that leaves 2.5 % above it


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, as (low, high) between 0 and 1.

    Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953. No trials: (0, 1).
    """
    if trials == 0:
        return 0.0, 1.0
    p = successes / trials
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test: `gained` and `lost` are the problems that only one of two got right.

    McNemar (1947), https://doi.org/10.1007/BF02295996, with the binomial distribution instead of its approximation.
    """
    n, k = gained + lost, min(gained, lost)
    tail = sum(comb(n, i) for i in range(k + 1))
    return float(min(1.0, 2 * tail / 2**n))
