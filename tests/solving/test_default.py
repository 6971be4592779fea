"""Which model answers where none is named: the user's own, else the best that is here and fits."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from sgft_edge import models
from sgft_edge.errors import InputError, ModelError, ModelMissing
from sgft_edge.host import machine
from sgft_edge.host.files import config_folder, models_folder
from sgft_edge.host.machine import Memory
from sgft_edge.reasoning.settings import DEFAULT_MODEL, FALLBACK_MODEL
from sgft_edge.solving.budget import LEAST_CONTEXT, need_of
from sgft_edge.solving.default import Default, choose_default, own_default, use, use_none
from sgft_edge.store import digests, places
from sgft_edge.store.manifest import Entry, Manifest, put, remove

PLENTY = Memory(64 * 10**9, 60 * 10**9)


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[Memory], None]:
    def be(found: Memory) -> None:
        monkeypatch.setattr(machine, "memory", lambda: found)

    be(PLENTY)
    return be


@pytest.fixture
def have(llama: Path) -> Callable[..., None]:
    """Put known models on this machine; their files are tiny."""

    def add(*names: str) -> None:
        known = Manifest.load().entries
        for name in names:
            models_folder().mkdir(exist_ok=True)
            entry = known.get(name) or Entry(name=name, title=name, role="model", file=f"{name}.gguf", licence="MIT")
            put(replace(entry, bytes=None, sha256=None, own=True))
            (models_folder() / entry.file).write_bytes(llama.read_bytes())

    return add


def run(*args: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `sgft-edge models` in a process of its own."""
    command = [sys.executable, "-m", "sgft_edge.cli", "models", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_ranked_come_first_by_rank_then_the_others_in_order(have):
    with pytest.raises(ModelMissing, match=r"no model is on this machine: run `sgft-edge models pull`, which fetches"):
        choose_default()
    for name, why in (
        ("mine", f"{DEFAULT_MODEL} is not on this machine, `sgft-edge models pull` fetches it"),
        ("qwen3-0.6b", f"{DEFAULT_MODEL} is not on this machine, `sgft-edge models pull` fetches it"),
        (FALLBACK_MODEL, f"{DEFAULT_MODEL} is not on this machine, `sgft-edge models pull` fetches it"),
        (DEFAULT_MODEL, ""),
    ):
        have(name)
        assert choose_default() == Default(name, why)
    have("qwen2.5-coder-1.5b")  # nothing was measured of it
    assert choose_default() == Default(DEFAULT_MODEL, "")


def test_an_adapter_is_no_default(have):
    assert any(entry.role == "adapter" and places.locate(entry) for entry in Manifest.load().entries.values())
    have(FALLBACK_MODEL)
    assert choose_default().name == FALLBACK_MODEL


def test_what_does_not_fit_into_memory_is_passed_over(have, memory):
    have("qwen2.5-coder-1.5b", DEFAULT_MODEL, FALLBACK_MODEL)
    for free, name in ((1500, DEFAULT_MODEL), (850, DEFAULT_MODEL), (849, "smollm2")):
        memory(Memory(4 * 10**9, free * 10**6))
        assert choose_default().name == name
    assert choose_default().why == "qwen2.5-coder-0.5b needs about 850 MB of memory, less is free"
    memory(Memory(4 * 10**9, 10**6))
    assert choose_default().name == "smollm2", "the smallest, where none fits"
    memory(Memory(4 * 10**9, 10**9, limit=400 * 10**6, limit_used=0))
    assert choose_default().name == "smollm2"


def test_a_system_that_tells_nothing_of_its_memory(have, monkeypatch):
    def tells_nothing() -> Memory:
        raise OSError("no /proc")

    monkeypatch.setattr(machine, "memory", tells_nothing)
    have(DEFAULT_MODEL, FALLBACK_MODEL)
    assert choose_default() == Default(DEFAULT_MODEL)


def test_a_limit_takes_the_best_whose_estimate_is_within_it(have, tiny_files):
    have(DEFAULT_MODEL, FALLBACK_MODEL)
    path = models_folder() / Manifest.load().get(DEFAULT_MODEL).file
    larger = path.read_bytes() + bytes(50_000_000)  # of two models of one architecture, the larger
    path.write_bytes(larger)
    need = need_of(DEFAULT_MODEL, path, 2048, Manifest.load())
    assert need is not None
    assert choose_default(need.total + 10**7) == Default(DEFAULT_MODEL)
    limit = need.total - 3 * 10**7
    assert choose_default(limit) == Default("smollm2", f"qwen2.5-coder-0.5b does not fit into {limit // 10**6} MB")
    assert choose_default(10**6).name == "smollm2", "the smallest: the budget says what it lacks"


def test_with_less_context_where_none_fits_with_all(have):
    have(FALLBACK_MODEL)
    path = models_folder() / Manifest.load().get(FALLBACK_MODEL).file
    whole, least = (need_of(FALLBACK_MODEL, path, tokens, Manifest.load()) for tokens in (2048, LEAST_CONTEXT))
    assert whole is not None
    assert least is not None
    assert least.total < whole.total
    assert choose_default((least.total + whole.total) // 2).name == FALLBACK_MODEL


def test_the_users_own_default_wins(have, memory):
    have(DEFAULT_MODEL, "mine")
    use("mine")
    assert choose_default() == Default("mine", "it is your default")
    memory(Memory(4 * 10**9, 1))
    assert choose_default().name == "mine"
    assert choose_default(4 * 10**9).name == "mine"
    use_none()
    use_none()
    assert own_default() is None
    memory(PLENTY)
    assert choose_default().name == DEFAULT_MODEL


def test_own_default_that_does_not_fit_under_a_limit(have):
    have("mine", FALLBACK_MODEL)
    path = models_folder() / "mine.gguf"
    path.write_bytes(path.read_bytes() + bytes(200_000_000))
    use("mine")
    need = need_of(FALLBACK_MODEL, target(FALLBACK_MODEL), 2048, Manifest.load())
    assert need is not None
    limit = need.total + 10**8  # of the process, too
    assert choose_default(limit) == Default(FALLBACK_MODEL, f"mine does not fit into {limit // 10**6} MB")


def test_use_refuses(have, gguf):
    have(FALLBACK_MODEL)
    for name, error, told in (
        ("smolm2", ModelError, r"unknown model 'smolm2' \(did you mean smollm2"),
        (DEFAULT_MODEL, ModelMissing, f"run `sgft-edge models pull {DEFAULT_MODEL}`"),
        (
            "smollm2-guide",
            InputError,
            r"expected a model, found smollm2-guide, which is an adapter of smollm2: use",
        ),
        (str(gguf), InputError, r"give the file a name with `sgft-edge models add NAME"),
    ):
        with pytest.raises(error, match=told):
            use(name)
    assert not (config_folder() / "defaults.toml").exists()


def test_own_default_that_vanished(have, gguf):
    have(FALLBACK_MODEL, "other")
    use("other")
    (models_folder() / "other.gguf").unlink()
    with pytest.raises(ModelMissing) as caught:
        choose_default()
    assert str(caught.value) == (
        "your default model other cannot be had: other is not on this machine: run `sgft-edge models pull other`; "
        "`sgft-edge models use --auto` takes the choice back"
    )
    places.add("mine", gguf)
    use("mine")
    gguf.unlink()
    with pytest.raises(ModelMissing, match=rf"mine is not on this machine: {gguf} is gone: put it back, or name"):
        choose_default()
    remove("mine")
    with pytest.raises(ModelMissing, match=r"unknown model 'mine'.*use --auto"):
        choose_default()


@pytest.mark.parametrize("text", ["", "model = 1", "[model", "other = 'x'", "\x00", 'model = "a"\nmodel = "b"'])
def test_a_damaged_file_is_named(have, text):
    have(FALLBACK_MODEL)
    (config_folder() / "defaults.toml").write_text(text)
    with pytest.raises(ModelError, match=r'defaults\.toml: expected model = "NAME", found otherwise: .*use --auto'):
        choose_default()
    assert run("use", "--auto")[0] == 0
    assert choose_default().name == FALLBACK_MODEL


def test_a_file_that_cannot_be_written_or_read(have, gguf, monkeypatch):
    have(FALLBACK_MODEL)
    monkeypatch.setenv("SGFT_EDGE_MODELS", str(models_folder()))
    monkeypatch.setenv("SGFT_EDGE_CONFIG", str(gguf))
    for act in (own_default, use_none):
        with pytest.raises(ModelError, match=r"cannot (read|delete) .*defaults\.toml: Not a directory"):
            act()


def test_command_use(have):
    have(DEFAULT_MODEL, "mine")
    plain = f"{DEFAULT_MODEL} answers where no model is named\n"
    own = "mine answers where no model is named: it is your default\n"
    assert run("use") == (0, plain, "")
    assert run("use", "mine") == (0, own, "")
    assert run("use") == (0, own, "")
    assert run("use", "mine", "--auto")[0] == 2
    status, _, told = run("use", "mimi")
    assert (status, told.count("\n")) == (1, 1)
    assert "unknown model 'mimi' (did you mean mine" in told
    assert run("use") == (0, own, "")
    assert run("use", "--auto") == (0, plain, "")


def test_command_list_marks_the_default(have):
    def listed() -> list[str]:
        rows = json.loads(CliRunner().invoke(models.command, ["list", "--json"]).output)
        return [row["name"] for row in rows if row["default"]]

    assert listed() == []
    assert "no model is on this machine" in CliRunner().invoke(models.command, ["list"]).output
    have(FALLBACK_MODEL, "mine")
    assert listed() == [FALLBACK_MODEL]
    use("mine")
    assert listed() == ["mine"]
    assert (
        "mine answers where no model is named: it is your default"
        in CliRunner().invoke(models.command, ["list"]).output
    )


@pytest.fixture
def sources(tmp_path: Path, gguf: Path) -> Callable[[str, bool], None]:
    """Give a model a single source, a file that is there or not."""

    def give(name: str, good: bool) -> None:
        place = gguf if good else tmp_path / "absent.gguf"
        known = Manifest.load().get(name)
        put(replace(known, sources=(f"file:{place}",), sha256=digests.file_digest(gguf), bytes=None, own=True))

    return give


def target(name: str) -> Path:
    return models_folder() / Manifest.load().get(name).file


def test_pull_without_a_name_fetches_the_default(sources):
    sources(DEFAULT_MODEL, True)
    sources(FALLBACK_MODEL, True)
    assert run("pull")[:2] == (0, f"{target(DEFAULT_MODEL)}\n")
    assert not target(FALLBACK_MODEL).exists()


def test_pull_without_a_name_falls_back_and_says_so(sources):
    sources(DEFAULT_MODEL, False)
    sources(FALLBACK_MODEL, True)
    status, out, err = run("pull")
    assert (status, out) == (0, f"{target(FALLBACK_MODEL)}\n")
    told = [line for line in err.splitlines() if line.startswith("sgft-edge: ")]
    assert len(told) == 1
    assert told[0].startswith("sgft-edge: cannot pull qwen2.5-coder-0.5b: file:")
    assert told[0].endswith("; smollm2, which is smaller and answers worse, is fetched instead")
    sources(FALLBACK_MODEL, False)
    target(FALLBACK_MODEL).unlink()
    status, out, err = run("pull")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("sgft-edge: error: cannot pull smollm2: ")


def test_pull_without_a_name_looks_at_the_memory_first(sources, memory, capsys):
    memory(Memory(400 * 10**6, 300 * 10**6))
    sources(DEFAULT_MODEL, True)
    sources(FALLBACK_MODEL, True)
    assert models.main(["pull"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{target(FALLBACK_MODEL)}\n"
    assert "qwen2.5-coder-0.5b needs about 850 MB of memory, this machine grants 400 MB; smollm2" in err


def test_pull_without_a_name_fetches_the_users_own(have, gguf):
    have("mine")
    use("mine")
    path = models_folder() / "mine.gguf"
    path.unlink()
    put(replace(Manifest.load().get("mine"), sources=(f"file:{gguf}",)))
    assert run("pull")[0] == 0
    assert path.read_bytes() == gguf.read_bytes()


def test_choosing_reads_no_model_and_loads_nothing_heavy(have):
    have(DEFAULT_MODEL, FALLBACK_MODEL)
    code = """
import builtins, io, sys
opened = []
real = io.open
def spy(file, *args, **kwargs):
    opened.append(str(file))
    return real(file, *args, **kwargs)
io.open = builtins.open = spy
from sgft_edge.solving.default import choose_default
choose_default()
print([name for name in opened if name.endswith(".gguf")], {m.partition(".")[0] for m in sys.modules})
"""
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, env={**os.environ})
    files, _, modules = printed.partition("] {")
    assert files == "["
    assert not {name for name in ("rich", "click", "numpy", "llama_cpp", "jinja2") if f"'{name}'" in modules}
