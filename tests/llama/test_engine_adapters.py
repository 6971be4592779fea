"""Adapters side by side on one KV cache, activated ones among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from engines import (
    Probe,
    assert_read_right,
    begin,
    by_base,
    logits_after,
    run,
)
from texts import TEXT, ids

from sgft_edge.llama.engine import Engine
from sgft_edge.reasoning.backend import Usage

TURN = "<|im_start|>assistant\n"  # what invokes the activated adapters of these tests


def test_an_adapter_leaves_nothing_in_the_kv_cache(llama: Path, tiny_files: Path) -> None:
    engine = Engine(llama, slots=1, window=512)
    paths = (None, tiny_files / "lora.gguf", None, tiny_files / "other_lora.gguf", tiny_files / "lora.gguf", None)
    tokens = ids(engine, TEXT)
    plain, adapted = (logits_after(llama, [(token, path) for token in tokens])[0] for path in paths[:2])
    assert np.abs(plain - adapted).max() > 1, "an adapter that changes nothing tests nothing"
    for fixed in (0, len(tokens) - 2):  # without and with states of prefixes that are kept
        probe = Probe(engine)
        sequence = engine.acquire()
        for path in paths:
            sequence.begin(tokens, engine.adapter(path) if path else None, Usage(), fixed)
            probe.logits.clear()
            run(sequence.complete(8))
            assert_read_right(llama, [(token, path) for token in tokens], probe.logits[0])
        sequence.close()
    engine.close()


def test_base_and_adapters_work_side_by_side(engine: Engine, llama: Path, tiny_files: Path) -> None:
    probe = Probe(engine)
    paths = [None, tiny_files / "lora.gguf", tiny_files / "other_lora.gguf"]
    sequences = [begin(engine, TEXT, engine.adapter(path) if path else None) for path in paths]
    run(*(sequence.complete(12) for sequence in sequences))
    for sequence, path in zip(sequences, paths, strict=True):
        assert_read_right(llama, [(token, path) for token in ids(engine, TEXT)], probe.logits[sequence.slot])
    assert engine.switches <= 2, "weights were switched before all work under them was done"


@pytest.fixture
def alora(llama: Path, tmp_path: Path) -> Path:
    engine = Engine(llama, window=256)
    invocation = ids(engine, TURN)
    engine.close()
    return tiny.tiny_adapter(tmp_path / "alora.gguf", llama, alora_invocation_tokens=invocation)


def test_an_activated_adapter_reads_from_its_last_invocation_on(engine: Engine, llama: Path, alora: Path) -> None:
    probe = Probe(engine)
    adapter = engine.adapter(alora)
    text = f"<|im_start|>user\n{TEXT}<|im_end|>\n{TURN}1. Find<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n"
    before, after = ids(engine, text), ids(engine, TURN)
    assert list(adapter.invocation) == after
    sequence = begin(engine, before + after, adapter)
    run(sequence.complete(8))
    weights = [row[3] for row in probe.rows]
    assert weights == [None] * len(before) + [adapter] * (len(weights) - len(before))
    found = probe.logits[sequence.slot]
    assert_read_right(llama, [*by_base(before), *((t, alora) for t in after)], found)
    assert np.abs(logits_after(llama, by_base(before + after))[0] - found[0]).max() > 1


def test_the_answerer_reuses_what_the_base_weights_read_for_the_guide(engine: Engine, llama: Path, alora: Path) -> None:
    probe = Probe(engine)
    question = ids(engine, f"<|im_start|>user\n{TEXT}")
    plan = ids(engine, f"Write the plan.<|im_end|>\n{TURN}")
    execute = ids(engine, f"Carry it out.<|im_end|>\n{TURN}")
    sequence, guide, answerer = engine.acquire(), Usage(), Usage()
    sequence.begin(question + plan, engine.adapter(alora), guide)
    run(sequence.complete(8))
    assert (guide.prefilled, guide.reused, guide.decoded) == (len(question) + len(plan), 0, 8)
    probe.rows.clear()
    probe.logits.clear()
    sequence.begin(question + execute, None, answerer)
    run(sequence.complete(8))
    assert (answerer.prefilled, answerer.reused, answerer.decoded) == (len(execute), len(question), 8)
    assert [row[1] for row in probe.rows] == list(range(len(question), len(question) + len(execute) + 7))
    assert_read_right(llama, by_base(question + execute), probe.logits[sequence.slot])
    # The same text in both roles: the base's cells end where the invocation begins.
    again = Usage()
    sequence.begin(question + execute, engine.adapter(alora), again)
    assert again.reused == len(question + execute) - len(ids(engine, TURN))


def test_an_activated_adapter_without_its_invocation_is_off(engine: Engine, llama: Path, alora: Path) -> None:
    probe = Probe(engine)
    sequence = begin(engine, TEXT, engine.adapter(alora))
    run(sequence.complete(8))
    assert {row[3] for row in probe.rows} == {None}
    assert_read_right(llama, by_base(ids(engine, TEXT)), probe.logits[0])
