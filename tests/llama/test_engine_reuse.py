"""What a KV cache holds is taken over, and nothing else."""

from __future__ import annotations

from pathlib import Path

from engines import (
    Probe,
    assert_read_right,
    begin,
    by_base,
    run,
)
from texts import TEXT, ids

from sgft_edge.llama.engine import Engine
from sgft_edge.reasoning.backend import Usage


def test_a_fixed_prefix_is_read_once_and_changes_nothing(engine: Engine, llama: Path) -> None:
    probe = Probe(engine)
    head, tails = ids(engine, TEXT * 3), [ids(engine, f"{n} loaves?") for n in ("Ten", "Two", "Five")]
    usages = []
    for tail, fixed in zip(tails, (len(head), len(head), 0), strict=True):
        sequence, usage = engine.acquire(), Usage()
        sequence.begin(head + tail, None, usage, fixed)
        run(sequence.complete(8))
        usages.append((usage.prefilled, usage.reused, usage.decoded))
        assert_read_right(llama, by_base(head + tail), probe.logits[sequence.slot])
    h, (a, b, c) = len(head), map(len, tails)
    assert usages == [(h + a, 0, 8), (b, h, 8), (h + c, 0, 8)]
    assert len(probe.rows) == (h + a) + b + (h + c) + 3 * 7  # the last token of each text need not be read


def test_a_prefix_is_kept_for_each_set_of_weights(engine: Engine, lora: Path) -> None:
    tokens = ids(engine, TEXT * 3)
    adapter = engine.adapter(lora)
    found = []
    for weights in (None, adapter, None, adapter):
        sequence, usage = engine.acquire(), Usage()
        sequence.begin(tokens, weights, usage, len(tokens) - 5)
        found.append((usage.prefilled, usage.reused))
        sequence.close()
    n = len(tokens)
    assert found == [(n, 0), (n, 0), (5, n - 5), (5, n - 5)]


def test_more_prefixes_than_are_kept(engine: Engine, llama: Path) -> None:
    probe = Probe(engine)
    texts = [ids(engine, f"{n} {TEXT}") for n in range(12)]
    for tokens in (*texts, *texts[::-1]):
        sequence = engine.acquire()
        sequence.begin(tokens, None, Usage(), len(tokens) - 3)
        probe.logits.clear()
        run(sequence.complete(2))
        sequence.close()
    assert_read_right(llama, by_base(texts[0]), probe.logits[0])


def test_what_a_sequence_holds_is_reused_token_by_token(engine: Engine) -> None:
    probe = Probe(engine)
    first, second = ids(engine, TEXT + "How many are left?"), ids(engine, TEXT + "How much is it?")
    shared = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    sequence = engine.acquire()
    for tokens, reused in ((first, 0), (first, len(first) - 1), (second, shared), (first[:9], 8)):
        probe.rows.clear()
        probe.logits.clear()
        usage = Usage()
        sequence.begin(tokens, None, usage)
        run(sequence.complete(6))
        assert (usage.reused, usage.prefilled) == (reused, len(tokens) - reused)
        assert [row[1] for row in probe.rows] == list(range(reused, len(tokens) + 5))
        assert_read_right(engine.model.path, by_base(tokens), probe.logits[sequence.slot])


def test_a_longer_prefix_than_the_sequence_holds_is_read_from_its_start_and_once(engine: Engine) -> None:
    """The state that is kept of a prefix does not depend on what the sequence had read before."""
    head, rest = ids(engine, TEXT * 3), ids(engine, "Write the plan. How many?")
    sequence = begin(engine, head + ids(engine, "Why?"))
    run(sequence.complete(2))
    fixed, found = len(head) + 4, []
    for _ in range(2):
        usage = Usage()
        sequence.begin(head + rest, None, usage, fixed)
        run(sequence.complete(2))
        found.append((usage.reused, usage.prefilled))
        sequence.begin(rest, None, Usage())
    assert found == [(0, len(head + rest)), (fixed, len(head + rest) - fixed)]
