"""Templates made to waste or to reach out, drawn at random. More of them: benchmarks/hostile_templates.py."""

from __future__ import annotations

import os
import random

import pytest

from benchmarks.hostile_templates import hostile, is_bounded, measured

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each has a process of its own")


def drawn(seed: int, count: int) -> None:
    draw = random.Random(seed)
    for _ in range(count):
        source = hostile(draw)
        found = measured(source)
        assert is_bounded(*found), (found, source)


def test_a_few_hostile_templates() -> None:
    drawn(1, 40)


@pytest.mark.slow
def test_many_hostile_templates() -> None:
    drawn(2, 1000)


def test_what_is_not_bounded_is_told() -> None:
    assert measured("{{ messages[0].role }}")[0] == "failed"
    assert measured("{% for i in range(10 ** 9) %}x{% endfor %}")[0] == "stopped by the sandbox"
    assert not is_bounded("SIGXCPU", 1.0, 0)
    assert not is_bounded("failed", 11.0, 0)
    assert not is_bounded("failed", 1.0, 2 * 10**9)
