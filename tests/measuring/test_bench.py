"""`sgft-edge bench` on a tiny model: that both contenders do the same work, and what is made of the measurements."""

import json
from pathlib import Path
from statistics import median

import pytest
import tiny

from sgft_edge import bench
from sgft_edge.errors import ContextOverflow, EngineError, InputError, ModelError
from sgft_edge.host.child import run_child
from sgft_edge.host.machine import peak_bytes
from sgft_edge.llama.engine import Engine
from sgft_edge.measuring.compare import compare
from sgft_edge.measuring.measure import CONTENDERS
from sgft_edge.reasoning.backend import Usage

SMALL = {"prompt_tokens": 40, "decode_tokens": 8, "context": 256, "threads": 1}
OPTIONS = ["--prompt-tokens", "40", "--decode-tokens", "8", "--context", "256", "--threads", "1", "--repeats", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_model(tmp_path_factory.mktemp("bench") / "tiny.gguf")


def test_compare(model):
    done = []
    comparison = compare(model, repeats=3, advance=lambda: done.append(1), **SMALL)
    runs = comparison.measurements
    assert len(done) == 6
    assert [m.contender for m in runs] == ["engine", "llama", "llama", "engine", "engine", "llama"]
    assert {(m.prompt_tokens, m.decoded_tokens, m.device) for m in runs} == {(40, 8, "CPU")}
    assert comparison.same_text
    assert runs[0].text
    for contender in CONTENDERS:
        mine = [m for m in runs if m.contender == contender]
        medians = comparison.medians(contender)
        assert medians.prefill_rate == median(40 / m.first_token_s for m in mine)
        assert medians.decode_rate == median(7 / m.decode_s for m in mine)
        assert medians.first_token_s == median(m.first_token_s for m in mine)
        assert medians.peak_mb == median(m.peak_mb for m in mine) > 20
    ours, theirs = map(comparison.medians, CONTENDERS)
    assert comparison.ratio().decode_rate == ours.decode_rate / theirs.decode_rate
    values = comparison.to_dict()
    assert len(json.loads(json.dumps(values))["measurements"]) == 6
    assert values["medians"]["engine"]["peak_mb"] == ours.peak_mb


def test_a_recurrent_model_is_refused_by_name(tmp_path):
    mamba = tiny.tiny_model(tmp_path / "mamba.gguf", "mamba")
    with pytest.raises(ModelError, match="'mamba', a recurrent model"):
        compare(mamba, repeats=1, **SMALL)


def test_a_model_that_ends_its_text_is_refused(model, tmp_path):
    engine = Engine(model, window=256)
    sequence = engine.acquire()
    sequence.begin(engine.model.tokenize(", ".join(map(str, range(1, 41))))[:40], None, Usage())
    engine.submit(sequence.complete(8))
    while engine.busy:
        engine.step()
    tokens = [token for token, _ in sequence.cells]
    prompt, decoded = tokens[:40], tokens[40:]
    engine.close()
    end = next(i for i, token in enumerate(decoded) if i >= 2 and token not in decoded[:i])
    vocab = tiny.byte_tokenizer()
    key = "tokenizer.ggml.eos_token_id"
    vocab[key] = vocab[key]._replace(value=decoded[end])
    ending = tiny.tiny_model(tmp_path / "ending.gguf", vocab=vocab)
    with pytest.raises(EngineError, match=rf"engine decoded {end} of 8 tokens.*--decode-tokens {end} "):
        compare(ending, repeats=1, **SMALL)
    assert compare(ending, repeats=1, **{**SMALL, "decode_tokens": end}).same_text
    job = {"contender": "llama", "model": str(ending), "device": "cpu", "threads": 1, "context": 256}
    with pytest.raises(EngineError, match=f"llama decoded {end} of 8 tokens"):
        run_child("sgft_edge.measuring.measure", {**job, "prompt": prompt, "decode_tokens": 8})


def test_command(model, capsys):
    assert bench.main(["--model", str(model), *OPTIONS]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["MEDIAN", "ENGINE", "LLAMA", "ENGINE/LLAMA"]
    assert "40 prompt and 8 decoded tokens, context 256, 1 runs each, the same text in all runs" in out
    assert bench.main(["--model", str(model), *OPTIONS, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["measurements"]) == 2


def test_refusals(model, tmp_path, capsys):
    with pytest.raises(InputError, match="decode-tokens: expected from 2 to 16777216, found 1"):
        compare(model, **{**SMALL, "decode_tokens": 1})
    with pytest.raises(ContextOverflow, match="need 257 tokens, the context window holds 256"):
        compare(model, **{**SMALL, "prompt_tokens": 248})
    with pytest.raises(ModelError, match="is not a GGUF file"):
        compare(tiny.not_gguf(tmp_path / "text.gguf"), **SMALL)
    assert bench.main([]) == 1
    assert "run `sgft-edge models pull`" in capsys.readouterr().err


def test_a_child_that_fails_says_why(tmp_path):
    job = {"contender": "engine", "model": str(tmp_path / "absent.gguf"), "prompt": [1], "decode_tokens": 2}
    with pytest.raises(EngineError, match=r"cannot read .*absent\.gguf"):
        run_child("sgft_edge.measuring.measure", {**job, "context": 256, "threads": 1, "device": "cpu"})
    with pytest.raises(EngineError, match=r"No module named sgft_edge\.nonesuch"):
        run_child("sgft_edge.nonesuch")
    with pytest.raises(EngineError, match="did not end within"):
        run_child("sgft_edge.llama.build", timeout_s=0.001)


def test_peak_memory_counts_what_was_freed():
    assert len(b"x" * 100_000_000) <= peak_bytes()
