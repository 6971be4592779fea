import re
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
from engines import (
    TOLERANCE,
    Probe,
    assert_read_right,
    begin,
    by_base,
    cells_in_cache,
    kv_text,
    run,
    sampled_tokens,
    written,
)
from texts import PROMPTS, SAMPLED, TEXT, ids, written_fresh

from sgft_edge.errors import (
    ContextOverflow,
    EngineError,
    ModelError,
)
from sgft_edge.llama.engine import Engine, Sequence
from sgft_edge.llama.sampling import Sampler
from sgft_edge.reasoning.backend import Completion, Usage
from sgft_edge.reasoning.settings import Sampling
from sgft_edge.text.gbnf import gbnf_literal

# ------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_a_question_reads_the_same_alone_and_in_a_batch(tiny_files: Path, arch: str) -> None:
    path = tiny_files / f"{arch}.gguf"
    engine = Engine(path, slots=len(PROMPTS), window=1024, threads=2)
    probe = Probe(engine)
    sequences = [begin(engine, prompt) for prompt in PROMPTS]
    together = run(*(sequence.complete(24) for sequence in sequences))
    assert probe.most_sequences == len(PROMPTS)
    for sequence, prompt, completion in zip(sequences, PROMPTS, together, strict=True):
        found = probe.logits[sequence.slot]
        assert len(found) == 24
        assert_read_right(path, by_base(ids(engine, prompt)), found)
        best = b"".join(engine.model.piece(int(row.argmax())) for row in found)
        assert completion.text == best.decode("utf-8", "replace")
    engine.close()


def test_a_prompt_longer_than_a_batch_is_read_in_parts(llama: Path) -> None:
    engine = Engine(llama, slots=2, window=1024)
    probe = Probe(engine)
    tokens = (ids(engine, TEXT) * 100)[:900]
    long, short = begin(engine, tokens), begin(engine, "How many?")
    assert engine.context.batch_size < 900
    run(long.complete(4), short.complete(20))
    for sequence, read in ((long, tokens), (short, ids(engine, "How many?"))):
        assert_read_right(llama, by_base(read), probe.logits[sequence.slot])
    assert [row[1] for row in probe.rows if row[0] == long.slot] == list(range(903))
    first_parts = {row[0] for row in probe.rows[: engine.context.batch_size + 10]}
    assert first_parts == {long.slot, short.slot}, "the short one waits"
    engine.close()


def test_draws_depend_on_the_seed_and_not_on_the_neighbours(engine: Engine) -> None:
    """A text's draws are those of a sampler with its seed, whatever the others in the batch do."""
    probe = Probe(engine)
    settings = (Sampling(2.0, seed=1), SAMPLED, Sampling(), SAMPLED)
    sequences = [begin(engine, text) for text in (PROMPTS[2], TEXT, PROMPTS[1])]
    run(*(s.complete(24, sampling=how) for s, how in zip(sequences, settings, strict=False)))
    for sequence, prompt, how in zip(sequences, (PROMPTS[2], TEXT, PROMPTS[1]), settings, strict=False):
        sampler = Sampler(how)
        drawn = sampled_tokens(sequence, ids(engine, prompt))
        assert drawn == [sampler.pick(logits) for logits in probe.logits[sequence.slot]]
        sequence.close()
    assert written(engine, TEXT, sampling=SAMPLED) == written(engine, TEXT, sampling=SAMPLED)
    assert written(engine, TEXT, sampling=SAMPLED) != written(engine, TEXT, sampling=Sampling(1.0, seed=6))


# ------------------------------------------------------------------------------------------------- reuse, usage


def test_the_time_of_a_decode_call_is_shared_by_who_is_in_it(engine: Engine) -> None:
    sequences = [begin(engine, TEXT), begin(engine, TEXT)]
    usages = [sequence.usage for sequence in sequences]
    decode, decoding = engine.context.decode, []

    def timed(n: int) -> None:
        began = time.perf_counter()
        decode(n)
        decoding.append(time.perf_counter() - began)

    engine.context.decode = timed  # type: ignore[method-assign]
    began = time.perf_counter()
    run(*(sequence.complete(8) for sequence in sequences))
    passed = time.perf_counter() - began
    assert usages[0].seconds == pytest.approx(usages[1].seconds)
    assert sum(decoding) <= sum(usage.seconds for usage in usages) <= passed
    for sequence in sequences:
        sequence.close()


def test_usage_adds_up_over_forced_and_decoded_text(engine: Engine) -> None:
    probe = Probe(engine)
    usage = Usage()
    sequence = engine.acquire()
    prompt = ids(engine, TEXT)
    sequence.begin(prompt, None, usage)
    run(sequence.complete(5))
    sequence.append(" = 12\n")
    forced = len(ids(engine, " = 12\n"))
    run(sequence.complete(7))
    assert (usage.prefilled, usage.reused, usage.decoded) == (len(prompt) + forced, 0, 12)
    assert len(probe.rows) == len(prompt) + 5 + forced + 6
    assert usage.calls == 1 + 4 + 1 + 6
    assert len(sequence.cells) == cells_in_cache(sequence) == len(probe.rows)


# ------------------------------------------------------------------------------------------------- stop strings


def check_stop(engine: Engine, sequence: Sequence, prompt: list[int], free: list[int], stop: str) -> None:
    """Decode `free` again up to `stop`; the text and the KV cache must end right before it."""
    raw = b"".join(map(engine.model.piece, free))
    sequence.begin(prompt, None, Usage())
    shown: list[str] = []
    done = run(sequence.complete(len(free), (stop,), on_text=shown.append))[0]
    whole = raw.decode("utf-8", "replace")
    assert done.text == whole[: whole.index(stop)]
    assert "".join(shown) == done.text
    assert done.finish == "stop"
    held = kv_text(sequence, len(prompt))
    assert raw.startswith(held)
    assert held.decode("utf-8", "replace") == done.text, f"stop {stop!r}"
    assert cells_in_cache(sequence) == len(sequence.cells)
    assert [token for token, _ in sequence.cells[: len(prompt)]] == prompt


def test_after_a_stop_the_cache_holds_the_text_before_it(engine: Engine) -> None:
    prompt, sequence = ids(engine, TEXT), engine.acquire()
    sequence.alone = True  # so that the same text is written each time
    sequence.begin(prompt, None, Usage())
    text = run(sequence.complete(24))[0].text
    free = sampled_tokens(sequence, prompt)
    assert "�" in text, "bytes that are no UTF-8 are part of the test"
    stops = {text[i : i + n] for i in range(len(text) - 4) for n in (1, 2, 4)}
    for stop in sorted(stops):
        if "�" not in stop:
            check_stop(engine, sequence, prompt, free, stop)


CHARACTERS = "Ein Käfer läuft zu 日本, 😀 ok. Then three."


def test_characters_of_many_tokens_are_whole(engine: Engine) -> None:
    prompt, sequence = ids(engine, TEXT), engine.acquire()
    grammar = f"root ::= {gbnf_literal(CHARACTERS)}"
    sequence.begin(prompt, None, Usage())
    shown: list[str] = []
    done = run(sequence.complete(200, grammar=grammar, on_text=shown.append))[0]
    assert (done.text, done.finish) == (CHARACTERS, "end")
    assert "".join(shown) == CHARACTERS
    assert not any("�" in part for part in shown)
    assert len(sequence.cells) - len(prompt) > len(CHARACTERS) - 10, "expected characters split over tokens"
    for start in range(len(CHARACTERS)):
        for n in (1, 2, 5):
            stop = CHARACTERS[start : start + n]
            before = CHARACTERS[: CHARACTERS.index(stop)]
            sequence.begin(prompt, None, Usage())
            shown.clear()
            done = run(sequence.complete(200, (stop,), grammar, on_text=shown.append))[0]
            assert (done.text, done.finish) == (before, "stop")
            assert "".join(shown) == before
            assert kv_text(sequence, len(prompt)).decode() == before
            assert cells_in_cache(sequence) == len(sequence.cells)


def test_what_follows_a_stop_is_read_after_the_text_before_it(engine: Engine, llama: Path) -> None:
    """The last token covers more than the stop: " the" where the stop is "he"."""
    probe = Probe(engine)
    prompt, sequence = ids(engine, TEXT), engine.acquire()
    the = ids(engine, " the")
    assert len(the) == 1
    sequence.begin(prompt, None, Usage())
    done = run(sequence.complete(9, ("he",), 'root ::= "a" " the" "n"', Sampling(1.0, seed=3)))[0]
    assert done.text == "a t"
    sequence.append("wo")
    probe.logits.clear()
    run(sequence.complete(6))
    assert kv_text(sequence, len(prompt)).startswith(b"a two")
    read = [token for token, _ in sequence.cells][:-5]
    assert_read_right(llama, by_base(read), probe.logits[sequence.slot])


def test_the_earliest_of_several_stops_counts(engine: Engine) -> None:
    grammar = 'root ::= "one, two, three"'
    for stops, text in (
        ((" three", ", "), "one"),
        (("two", "one"), ""),
        (("wo, three", "w"), "one, t"),
        (("x",), None),
    ):
        sequence = begin(engine, TEXT)
        done = run(sequence.complete(50, stops, grammar))[0]
        assert done.text == ("one, two, three" if text is None else text)
        assert kv_text(sequence, len(ids(engine, TEXT))).decode() == done.text
        sequence.close()


def test_text_that_may_begin_a_stop_is_shown_late_but_shown(engine: Engine) -> None:
    shown: list[str] = []
    done = run(begin(engine, TEXT).complete(50, ("three!",), 'root ::= "two three thre"', on_text=shown.append))[0]
    assert done.text == "".join(shown) == "two three thre"
    assert not any("three".startswith(part[-1]) and part.endswith(("t", "th", "thr")) for part in shown[:-1])


def test_a_length_of_one(engine: Engine) -> None:
    sequence = begin(engine, TEXT)
    done = run(sequence.complete(1))[0]
    assert (done.tokens, done.finish) == (1, "length")
    assert len(sequence.pending) == 1
    run(sequence.complete(1))
    assert len(sequence.cells) == len(ids(engine, TEXT)) + 1


def test_a_text_that_has_ended_needs_more_to_read(engine: Engine) -> None:
    sequence = begin(engine, TEXT)
    done = run(sequence.complete(9, grammar='root ::= "a"'))[0]
    assert done == Completion("a", 2, "end")
    with pytest.raises(EngineError, match="nothing to read"):
        run(sequence.complete(1))
    sequence.append(" more")
    assert run(sequence.complete(2))[0].finish == "length"


# ------------------------------------------------------------------------------------------------- overflow


def test_overflow_is_found_before_anything_is_decoded(llama: Path) -> None:
    engine = Engine(llama, slots=1, window=256)
    probe = Probe(engine)
    sequence = engine.acquire()
    token = ids(engine, "x")[0]
    with pytest.raises(ContextOverflow) as found:
        sequence.begin([token] * 250, None, Usage(), fixed=100, reserve=7)
    assert (found.value.needed, found.value.available) == (257, 256)
    assert re.search(r"257 tokens.* 256.*--context to at least 257", str(found.value))
    sequence.begin([token] * 250, None, Usage(), reserve=6)
    with pytest.raises(ContextOverflow) as found:
        sequence.append("x" * 7)
    assert (found.value.needed, found.value.available) == (257, 256)
    with pytest.raises(ContextOverflow) as found:
        engine.submit(sequence.complete(8))
    assert (found.value.needed, found.value.available) == (257, 256)
    assert probe.rows == []
    assert not engine.busy
    done = run(sequence.complete(7))[0]  # the last token need not be read
    assert (done.tokens, done.finish) == (7, "length")
    assert len(sequence.cells) + len(sequence.pending) == 257
    with pytest.raises(ContextOverflow) as found:
        sequence.append("y")
    assert found.value.needed == 258
    assert written(engine, TEXT, sequence=sequence) == written_fresh(llama, TEXT)
    engine.close()


def test_the_window_is_what_the_model_was_trained_for_at_most(llama: Path) -> None:
    engine = Engine(llama, window=100_000)
    assert engine.window == tiny.CONTEXT
    engine.close()


# ------------------------------------------------------------------------------------------------- no rewinding


def test_a_recurrent_model_works_without_rewinding_or_is_refused(tiny_files: Path) -> None:
    path = tiny_files / "mamba.gguf"
    try:
        engine = Engine(path, slots=2, window=512)
    except ModelError as e:
        assert "mamba" in str(e)  # noqa: PT017
        return
    prompt, sequence = ids(engine, TEXT), engine.acquire()
    sequence.begin(prompt, None, Usage())
    text = run(sequence.complete(16))[0].text
    assert text == written_fresh(path, TEXT)[: len(text)]
    stop = re.sub("�.*", "", text[3:])[:2] or text[-1]
    for tokens in (prompt, prompt, ids(engine, "Why?"), prompt[:5], prompt):  # forwards, again, another, a part
        sequence.begin(tokens, None, Usage())
        assert run(sequence.complete(1))[0].tokens == 1
        sequence.begin(tokens, None, Usage())
        assert run(sequence.complete(16))[0].text[:8] == written(engine, tokens, 16)[:8]
    sequence.begin(prompt, None, Usage())
    done = run(sequence.complete(16, (stop,)))[0]
    assert done.finish == "stop"
    sequence.append(" two")
    run(sequence.complete(2))
    assert kv_text(sequence, len(prompt)).decode("utf-8", "replace").startswith(f"{done.text} two")
    engine.close()


# ------------------------------------------------------------------------------------------------- closing


def test_sequences_are_lent_and_given_back(engine: Engine) -> None:
    first = begin(engine, TEXT)
    for _ in range(2):
        engine.acquire()
    assert engine.free == 0
    with pytest.raises(EngineError, match="all 3 sequences"):
        engine.acquire()
    engine.submit(first.complete(50))
    engine.step()
    first.close()
    assert engine.free == 1
    assert not engine.busy
    reused = begin(engine, "How many?")
    assert reused.slot == first.slot
    assert cells_in_cache(reused) == 0
    assert run(reused.complete(8))[0].text == written_fresh(engine.model.path, "How many?", 8)


def test_the_tolerance_is_far_below_what_tells_tokens_apart(llama: Path) -> None:
    engine = Engine(llama, window=256)
    probe = Probe(engine)
    written(engine, TEXT, 24)
    engine.close()
    assert np.median([np.diff(np.sort(row)[-2:])[0] for row in probe.logits[0]]) > 2 * TOLERANCE
