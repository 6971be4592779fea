"""The search for the fastest settings, and where they are kept."""

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from engines import begin, run
from texts import TEXT

from sgft_edge import bench, doctor
from sgft_edge.errors import InputError
from sgft_edge.host.files import models_folder
from sgft_edge.host.machine import logical_cores
from sgft_edge.llama import tuning
from sgft_edge.llama.engine import Engine
from sgft_edge.llama.tuning import Tuning, keep, tuning_for
from sgft_edge.measuring.search import DRAFTS, Speed, draft, search, thread_counts
from sgft_edge.solving.cast import open_cast
from sgft_edge.solving.wanted import Wanted
from sgft_edge.store.digests import file_digest
from sgft_edge.store.manifest import Entry, put

START = Tuning(2, 2)
THREADS = (1, 2, 4)


def machine(noise: float = 0.0, seed: int = 0, **best: object):  # type: ignore[no-untyped-def]
    """Timings of a machine on which each of these settings brings a tenth where it is as given."""
    rng = random.Random(seed)

    def measure(tried: Tuning) -> Speed:
        gains = {name: 0.9 if getattr(tried, name) == value else 1.0 for name, value in best.items()}
        both = gains.get("flash_attention", 1.0) * gains.get("kv_type", 1.0)
        prefill = 1.0 * gains.get("prefill_threads", 1.0) * gains.get("batch", 1.0) * both
        return Speed(prefill * rng.uniform(1, 1 + noise), gains.get("threads", 1.0) * both * rng.uniform(1, 1 + noise))

    return measure


def test_the_best_settings_are_found() -> None:
    best = {"threads": 4, "prefill_threads": 1, "batch": 128, "flash_attention": "on"}
    found, trials = search(START, machine(**best), THREADS, 3)
    assert found == replace(START, **best)  # type: ignore[arg-type]
    assert {trial.setting: trial.value for trial in trials if trial.won} == best
    assert all(trial.speedup == pytest.approx(1 / 0.9) for trial in trials if trial.won)


@pytest.mark.parametrize("seed", range(20))
def test_noise_changes_nothing(seed: int) -> None:
    found, trials = search(START, machine(noise=0.03, seed=seed), THREADS, 3)
    assert found == START
    assert len(trials) == 2 + 2 + 2 + 2 + 1


def test_a_winner_wins_most_of_the_pairs() -> None:
    """Two of five runs are much faster, the median is not."""
    times = iter([1.0, 0.5] * 100)

    def measure(tried: Tuning) -> Speed:
        return Speed(1.0, next(times) if tried.threads == 1 else 0.8)

    assert search(START, measure, (1, 2), 5)[0].threads == 2


def test_a_rounded_cache_is_tried_but_taken_only_where_allowed() -> None:
    for allowed, expected in ((False, "f16"), (True, "q8_0")):
        found, trials = search(START, machine(kv_type="q8_0"), THREADS, 1, rounded_kv=allowed)
        assert found.kv_type == expected
        assert trials[-1].value == "q8_0"
    found, trials = search(START, machine(flash_attention="off", kv_type="q8_0"), THREADS, 1, rounded_kv=True)
    assert (found.flash_attention, found.kv_type) == ("off", "f16")  # llama.cpp needs it on for that


def test_guessing_ahead_pays_where_batches_are_cheap() -> None:
    cheap = {n: 1 + 0.05 * n for n in DRAFTS}
    dear = {n: 1 + 0.6 * n for n in DRAFTS}
    tokens, speedup = draft(cheap)
    assert tokens == 4
    assert speedup == pytest.approx(1 / (0.301 + 0.321 * 1.2))
    assert draft(dear)[0] == 0
    assert draft({}) == (0, 1.0)


def test_thread_counts() -> None:
    counts = thread_counts()
    assert list(counts) == sorted(set(counts))
    assert {1, logical_cores()} <= set(counts)
    assert max(counts) == logical_cores()


# ------------------------------------------------------------------------------------------------- where it is kept

KEPT = Tuning(3, 1, 128, "on", "q8_0", 2, 1.25)


def test_a_tuning_is_kept_for_its_model() -> None:
    assert tuning_for("a" * 64) == (None, ())
    keep("a" * 64, KEPT)
    keep("b" * 64, START)
    keep("a" * 64, replace(KEPT, threads=2))
    assert tuning_for("a" * 64) == (replace(KEPT, threads=2), ())
    assert tuning_for("b" * 64) == (START, ())


def test_another_machine_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    keep("a" * 64, KEPT)
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "cpu_name", lambda: "another CPU")
        assert tuning_for("a" * 64) == (None, ())
    with monkeypatch.context() as patch:
        patch.setattr(tuning, "logical_cores", lambda: 999)
        assert tuning_for("a" * 64) == (None, ())
    assert tuning_for("a" * 64) == (KEPT, ())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("threads = 3", "threads = 0"),
        ("threads = 3", "threads = true"),
        ("threads = 3", 'threads = "3"'),
        ("threads = 3", "thread = 3"),
        ("threads = 3\n", ""),
        ("threads = 3", "threads = 3\nnonsense = 1"),
        ('"q8_0"', '"q9_0"'),
        ("1.25", "0.5"),
        ("1.25", "nan"),
        ("draft_tokens = 2", "draft_tokens = 128"),
        ('"on"', '"off"'),
        ("[models", "[[models"),
        ("[models", "models = 1\n[other"),
        ("threads = 3", "threads = "),
    ],
)
def test_a_damaged_file_is_ignored_with_a_line(before: str, after: str) -> None:
    path = keep("a" * 64, KEPT)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    found, (warning,) = tuning_for("a" * 64)
    assert found is None
    assert warning.startswith(f"{path}: expected what `sgft-edge bench --tune` writes, found otherwise")
    assert "\n" not in warning
    keep("a" * 64, KEPT)  # which mends it
    assert tuning_for("a" * 64) == (KEPT, ())


def test_a_file_that_cannot_be_written(folders: Path) -> None:
    (folders / "config").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write .*machine\.toml"):
        keep("a" * 64, KEPT)


# ------------------------------------------------------------------------------------------------- in use


def opened(path: Path, threads: int | None = None):  # type: ignore[no-untyped-def]
    return open_cast(Wanted(guide=path, adapter="none", context=512, threads=threads, device="cpu"))


def test_a_solver_takes_it_and_a_users_threads_go_before_it(llama: Path) -> None:
    keep(file_digest(llama), KEPT)
    for threads, batch, drafting in ((None, 128, KEPT.drafting), (1, 512, None)):
        cast = opened(llama, threads)
        engine = cast.guide.engine
        assert (engine.context.batch_size, engine.drafting) == (batch, drafting)
        cast.close()


def test_a_solver_warns_of_a_damaged_file(llama: Path) -> None:
    path = keep(file_digest(llama), KEPT)
    path.write_text("nonsense")
    cast = opened(llama)
    assert [str(path) in warning for warning in cast.warnings] == [True]
    cast.close()


@pytest.mark.parametrize(
    "tried",
    [
        Tuning(1, 2),
        Tuning(2, 1, 128),
        Tuning(1, 1, flash_attention="on"),
        Tuning(1, 1, flash_attention="off"),
        Tuning(1, 1, flash_attention="on", kv_type="q8_0"),
        Tuning(1, 1, draft_tokens=3),
    ],
    ids=str,
)
def test_every_setting_decodes(llama: Path, tried: Tuning) -> None:
    texts = []
    for each in (START, tried):
        engine = Engine(llama, window=512, tuning=each)
        texts.append(run(begin(engine, TEXT * 12).complete(8))[0].text)
        engine.close()
    if tried.kv_type == "f16" and tried.flash_attention == "auto":
        assert texts[0] == texts[1]
    assert texts[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [("threads", 0), ("batch", -1), ("flash_attention", "yes"), ("kv_type", "f32"), ("draft_tokens", 512)],
)
def test_what_cannot_be(field: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"{field}: expected .*, found {value!r}"):
        replace(START, **{field: value})


def test_the_doctor_tells_of_it(llama: Path) -> None:
    put(Entry(name="mine", title="Mine", role="model", file="llama.gguf", licence="MIT", sources=(f"file:{llama}",)))
    (models_folder()).mkdir(parents=True)
    shutil.copy(llama, models_folder() / "llama.gguf")
    keep(file_digest(llama), KEPT)
    done = CliRunner(env=dict(os.environ)).invoke(doctor.command)
    assert f"tuned mine         {KEPT}" in done.output


# ------------------------------------------------------------------------------------------------- the command


def test_bench_tunes_a_model(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgft_edge.measuring.search.thread_counts", lambda: (1, 2))
    options = ["--tune", "--repeats", "1", "--prompt-tokens", "32", "--decode-tokens", "4"]
    done = CliRunner(env=dict(os.environ)).invoke(bench.command, ["--model", str(llama), *options])
    assert done.exit_code == 0, done.output
    for setting in ("threads", "prefill threads", "batch", "flash attention", "tokens guessed ahead"):
        assert setting in done.output
    found, warnings = tuning_for(file_digest(llama))
    assert (found is not None, warnings) == (True, ())
    assert f"best: {found}" in done.output


def test_bench_says_what_is_wrong(llama: Path) -> None:
    assert bench.main(["--model", str(llama), "--tune", "--repeats", "0"]) == 2
    assert bench.main(["--model", str(llama), "--tune", "--decode-tokens", "1"]) == 2
