"""Memory: what a header tells, what llama.cpp then takes, and what gives way to a limit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sgft_edge import cli, solve
from sgft_edge.errors import InputError, ModelError
from sgft_edge.host import machine
from sgft_edge.host.machine import Memory
from sgft_edge.llama.context import Context
from sgft_edge.llama.engine import Engine
from sgft_edge.llama.library import log_lines
from sgft_edge.llama.model import Model
from sgft_edge.llama.tuning import Tuning
from sgft_edge.solver import Solver
from sgft_edge.solving import budget
from sgft_edge.solving.budget import ModelFile, Need, estimate, fit, parse_size, shortage, within
from sgft_edge.solving.sizes import Sizes
from sgft_edge.store import places
from sgft_edge.store.manifest import Manifest

MB = 1_000_000
MIB = 2**20
KNOWN = Manifest({})
SIZES = Sizes(file=100 * MB, repacked=0, vocabulary=0, window=4096, cell=10_000, row=0)


@pytest.fixture
def big(llama: Path) -> ModelFile:
    """A model of 100 MB whose KV cache takes 20 MB for 2048 tokens; the file that it names is a tiny one."""
    return ModelFile(llama, SIZES)


# ---------------------------------------------------------------------------------------------------- the option


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("600M", 600 * MB),
        ("1.5G", 1_500_000_000),
        ("1.5g", 1_500_000_000),
        ("800MB", 800 * MB),
        ("640k", 640_000),
        (" 2 GB ", 2_000_000_000),
        ("1T", 10**12),
        ("123456789", 123_456_789),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1M", "0", "0.0001K", "1.G", "600X", "1GiB", "1e9", "600 M B", "٣M"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"expected a size such as 600M or 1\.5G.*found " + re.escape(repr(text))):
        parse_size(text)


# ----------------------------------------------------------------------------------------------------- estimates


@pytest.mark.parametrize("name", ["llama", "qwen2"])
@pytest.mark.parametrize(("slots", "window"), [(1, 512), (1, 2048), (3, 300), (4, 1024)])
def test_the_kv_cache_is_what_llama_cpp_logs_and_buffers_are_no_less(
    tiny_files: Path, name: str, slots: int, window: int
) -> None:
    path, lines = tiny_files / f"{name}.gguf", list[str]()
    with log_lines(lines.append):
        model = Model(path)
        context = Context(model, slots, window, Tuning(1, 1))
        context.close()
        model.close()
    need = estimate([ModelFile.read(path)], slots, window, process=0)
    kept = budget._PREFIXES * Sizes.read(path).cell
    buffers = logged("compute", lines) + logged("output", lines)
    assert need.cache / MIB == pytest.approx(logged("KV", lines), abs=0.01)
    assert 1 <= (need.buffers - kept) / MIB / buffers <= 1.3  # two layers let more of each other's results go


def logged(what: str, lines: list[str]) -> float:
    """MiB of all buffers of a kind."""
    found = [re.search(rf"{what} buffer size =\s+([\d.]+) MiB", line) for line in lines]
    assert any(found)
    return sum(float(match[1]) for match in found if match)


def test_a_window_beyond_the_models_own_takes_no_more(llama: Path) -> None:
    model = ModelFile.read(llama)
    assert model.sizes.window == 2048
    assert estimate([model], 1, 100_000, process=0) == estimate([model], 1, 2048, process=0)


def test_what_adds_to_an_estimate(llama: Path, lora: Path) -> None:
    plain, tuned = ModelFile.read(llama), ModelFile.read(llama, [lora, lora])
    one = estimate([plain], 1, 2048, process=0)
    assert one.weights == llama.stat().st_size
    assert estimate([tuned], 1, 2048, process=0).weights == one.weights + lora.stat().st_size
    assert estimate([plain, plain], 1, 2048, process=0).cache == 2 * one.cache
    assert estimate([plain], 1, 2048, process=7 * MB).process == one.process + 7 * MB
    repacked = replace(plain, sizes=replace(plain.sizes, repacked=MB))
    assert estimate([repacked], 1, 2048, process=0).weights == one.weights + MB
    on_gpu = estimate([repacked], 1, 2048, process=0, on_gpu=True)
    assert (on_gpu.weights, on_gpu.cache) == (one.weights, 0)


def test_a_damaged_file_is_left_to_whoever_opens_it(gguf: Path) -> None:
    with pytest.raises(ModelError):
        Sizes.read(gguf)
    assert within({gguf: ()}, 2, 1024, KNOWN, limit=1).need == Need()


# -------------------------------------------------------------------------------------------------- what gives way


def least(model: ModelFile, parallel: int, context: int) -> int:
    return estimate([model], parallel, context, process=0).total


@pytest.mark.parametrize(
    ("within_limit", "warned"),
    [
        ((8, 2048), []),
        ((4, 2048), ["parallel lowered from 8 to 4"]),
        ((1, 2048), ["parallel lowered from 8 to 1"]),
        ((1, 1024), ["parallel lowered from 8 to 1", "context lowered from 2048 to 1024"]),
        ((1, 512), ["parallel lowered from 8 to 1", "context lowered from 2048 to 512"]),
    ],
)
def test_parallel_gives_way_before_context(big: ModelFile, within_limit: tuple[int, int], warned: list[str]) -> None:
    limit = least(big, *within_limit)
    cut = fit([big], 8, 2048, KNOWN, limit=limit, process=0)
    assert (cut.parallel, cut.context) == within_limit
    assert cut.need.total <= limit
    assert [warning.split(": ")[1] for warning in cut.warnings] == warned


def test_halves_of_odd_numbers(big: ModelFile) -> None:
    cut = fit([big], 7, 1500, KNOWN, limit=least(big, 1, 512), process=0)
    assert (cut.parallel, cut.context) == (1, 512)
    assert fit([big], 7, 1500, KNOWN, limit=least(big, 3, 1500), process=0).parallel == 3


def test_a_context_below_the_least_is_not_raised(big: ModelFile) -> None:
    with pytest.raises(InputError, match="one question of 256 tokens"):
        fit([big], 1, 256, KNOWN, limit=least(big, 1, 256) - 1, process=0)


def test_a_question_of_two_sequences_takes_both(big: ModelFile) -> None:
    assert fit([big], 4, 2048, KNOWN, sequences=2, limit=least(big, 4, 2048), process=0).parallel == 2


def test_the_refusal_says_what_was_found_and_what_would_fit(big: ModelFile, tiny_files: Path) -> None:
    with pytest.raises(InputError) as bare:
        fit([big], 8, 2048, KNOWN, limit=90 * MB, process=0)
    assert "none on this machine fits, `sgft-edge models list` has more" in str(bare.value)
    places.add("itself", big.path)
    places.add("smaller", tiny_files / "qwen2.gguf")
    with pytest.raises(InputError) as found:
        fit([big], 8, 2048, Manifest.load(), limit=90 * MB, process=0)
    need = estimate([big], 1, 512, process=0)
    assert str(found.value) == (
        f"max-memory: expected at most 90 MB, found an estimate of {need} for one question of 512 tokens: "
        "raise the limit, or take a smaller quantization or model; smaller fits"
    )
    assert str(need) == "121 MB (weights 100, KV cache 5, buffers 3, process 13)"
    assert found.value.exit_status == 2


def test_too_little_free_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    need = Need(weights=500 * MB, process=100 * MB)
    monkeypatch.setattr(machine, "memory", lambda: Memory(total=10**10, available=500 * MB))
    assert shortage(need, process=100 * MB) == ()
    monkeypatch.setattr(machine, "memory", lambda: Memory(total=10**10, available=400 * MB))
    (warning,) = shortage(need, process=100 * MB)
    assert warning.startswith("expected 500 MB of free memory, found 400: ")
    assert "--max-memory 500M" in warning


@pytest.mark.parametrize("error", [OSError, ValueError, AttributeError])
def test_a_machine_that_does_not_tell_its_memory(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def silent() -> Memory:
        raise error

    monkeypatch.setattr(machine, "memory", silent)
    assert shortage(Need(weights=10**15), process=0) == ()


# ------------------------------------------------------------------------------------------------------- solvers


def test_nothing_is_loaded_that_does_not_fit(llama: Path) -> None:
    lines = list[str]()
    with log_lines(lines.append):
        with pytest.raises(InputError, match="max-memory: expected at most 1 MB, found an estimate of"):
            Solver.open(llama, adapter="none", max_memory=MB)
        assert not [line for line in lines if "load_tensors" in line]
        Solver.open(llama, adapter="none", max_memory=10**10).close()
        assert [line for line in lines if "load_tensors" in line]


def test_a_solver_is_opened_with_what_fits(llama: Path) -> None:
    limit = (machine.resident_bytes() or 0) + 60 * MB
    with Solver.open(llama, adapter="none", parallel=64, max_memory=limit) as solver:
        (engine,) = solver.cast.engines
        assert isinstance(engine, Engine)
        assert engine.slots in (8, 16)
        assert engine.window == 2048
        assert solver.cast.need.total <= limit
        assert f"parallel lowered from 64 to {engine.slots}" in solver.cast.warnings[0]


def test_without_a_limit_all_is_as_asked_for(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: Memory(total=MB, available=MB))
    with Solver.open(llama, adapter="none", parallel=5, context=1024) as solver:
        (engine,) = solver.cast.engines
        assert isinstance(engine, Engine)
        assert (engine.slots, engine.window) == (5, 1024)
        assert "of free memory, found 1:" in solver.cast.warnings[0]


@pytest.mark.parametrize("limit", [0, -5])
def test_a_limit_is_a_positive_number(llama: Path, limit: int) -> None:
    with pytest.raises(InputError, match="max-memory: expected at least 1"):
        Solver.open(llama, max_memory=limit)


def test_the_command_lowers_or_refuses(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["solve", "What is 2 + 3?", "--guide", str(llama), "--strategy", "direct", "--max-tokens", "2", "--quiet"]
    assert cli.main([*asked, "--max-memory", "20G"]) == 0
    assert "lowered" not in capsys.readouterr().err
    assert cli.main([*asked, "--max-memory", "1M"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("sgft-edge: error: max-memory: expected at most 1 MB, found an estimate of")
    assert err.count("\n") == 1
    assert cli.main([*asked, "--max-memory", "plenty"]) == 2
    assert "found 'plenty'" in capsys.readouterr().err
    limit = (machine.resident_bytes() or 0) + 40 * MB
    asked = [*asked[1:], "--votes", "32", "--parallel", "32", "--max-memory", str(limit)]
    assert solve.main(asked) == 0
    assert "sgft-edge: warning: max-memory" in capsys.readouterr().err
