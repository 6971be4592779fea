"""Model files that llama.cpp dies on, tried in a process of their own before this one opens them."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner
from solvers import open_tiny

from sgft_edge import bench, models
from sgft_edge.errors import AdapterMismatch, EngineError, ModelError, PullError
from sgft_edge.host.files import cache_folder, models_folder
from sgft_edge.llama.model_trial import Step, outcomes
from sgft_edge.solving import strangers
from sgft_edge.solving.strangers import try_out
from sgft_edge.store.digests import file_digest
from sgft_edge.store.manifest import Entry, Manifest, put
from sgft_edge.store.pull import pull

pytestmark = pytest.mark.usefixtures("trial")


def two_equal_tokens(path: Path) -> Path:
    """A model that llama.cpp ends its process on: two entries of its vocabulary are equal."""
    vocabulary = tiny.byte_tokenizer()
    tokens = vocabulary["tokenizer.ggml.tokens"]
    doubled = [*tokens.value]
    doubled[50] = doubled[51]
    return tiny.tiny_model(path, vocab=vocabulary | {"tokenizer.ggml.tokens": tokens._replace(value=doubled)})


@pytest.fixture
def deadly(tmp_path: Path) -> Path:
    return two_equal_tokens(tmp_path / "deadly.gguf")


def trials() -> list[Path]:
    return sorted((cache_folder() / "trials").glob("*.json"))


def no_trial(*_: object) -> None:
    raise AssertionError("a file was tried that needs no trial")


def test_a_model_that_ends_its_process_is_an_error_of_one_line(deadly: Path) -> None:
    for _ in range(2):  # the second time from memory
        with pytest.raises(ModelError) as refused:
            open_tiny(deadly)
        assert str(refused.value) == (
            f"{deadly}: expected a model that opens, found one that does not: llama.cpp ended with SIGABRT: "
            "GGML_ASSERT(id_to_token.size() == token_to_id.size()): fetch or convert the file anew"
        )


def test_a_trial_is_made_once_for_a_content_whatever_its_name(
    llama: Path, lora: Path, deadly: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_tiny(llama, adapter=lora).close()
    with pytest.raises(ModelError):
        open_tiny(deadly)
    assert len(trials()) == 3
    monkeypatch.setattr(strangers, "outcomes", lambda steps: no_trial() if steps else iter(()))
    copies = [Path(tmp_path / f"copy of {path.name}") for path in (llama, lora, deadly)]
    for path, copy in zip((llama, lora, deadly), copies, strict=True):
        copy.write_bytes(path.read_bytes())
    open_tiny(copies[0], adapter=copies[1]).close()
    with pytest.raises(ModelError, match=r"copy of deadly.gguf: expected a model that opens"):
        open_tiny(copies[2])


def test_a_damaged_record_and_one_of_another_llama_cpp_are_as_none(llama: Path) -> None:
    try_out({llama: ()})
    (record,) = trials()
    sound = record.read_text()
    for other in ("", "[]", '{"library": 1', sound.replace("llama", "x"), json.dumps({"library": "another"})):
        record.write_text(other)
        try_out({llama: ()})
        assert record.read_text() == sound


def test_several_at_once_remember_the_same(llama: Path, lora: Path, deadly: Path) -> None:
    def tried(path: Path) -> str:
        try:
            try_out({path: (lora,) if path == llama else ()})
        except ModelError as e:
            return str(e)
        return "opens"

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(tried, [llama, deadly] * 2))
    assert found[0] == found[2] == "opens"
    assert found[1] == found[3] != "opens"
    assert len(trials()) == 3


def test_a_cache_that_cannot_be_written_costs_time_alone(llama: Path, tmp_path: Path) -> None:
    cache_folder().write_text("a file where the folder should be")
    open_tiny(llama).close()


def test_files_that_the_package_knows_need_no_trial(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "outcomes", lambda steps: no_trial() if steps else iter(()))
    entry = Entry(
        name="known", title="", role="model", file="k.gguf", licence="MIT", sha256=file_digest(llama), sources=()
    )
    try_out({llama: ()}, Manifest({"known": entry}))
    with pytest.raises(AssertionError, match="needs no trial"):
        try_out({llama: ()})


def test_the_variable_switches_it_off(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGFT_EDGE_TRIAL", "off")
    open_tiny(llama).close()
    assert not trials()


def test_an_adapter_is_tried_with_its_base(llama: Path, lora: Path, tiny_files: Path) -> None:
    with pytest.raises(AdapterMismatch, match=r"not an adapter for qwen2.gguf"):
        try_out({tiny_files / "qwen2.gguf": (lora,)})
    try_out({llama: (lora,)})
    with pytest.raises(AdapterMismatch, match=r"expect general.type to be 'adapter'"):
        try_out({llama: (llama,)})


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory has no such limit")
def test_a_trial_is_bound_in_memory(llama: Path) -> None:
    (_, starved), (_, sound) = outcomes([Step(str(llama), None, memory, 20) for memory in (1 << 20, 1 << 30)])
    assert starved is not None
    assert sound is None


def test_a_trial_is_bound_in_time(llama: Path, tmp_path: Path) -> None:
    steps = [Step(str(llama), None, 1 << 30, -1), Step(str(llama), None, 1 << 30, 20)]
    (_, slow), (_, sound) = outcomes(steps)
    assert slow is not None
    assert "s of processor time" in slow.reason
    assert sound is None


def test_what_follows_a_dead_process_is_tried_in_another(llama: Path, deadly: Path) -> None:
    steps = [Step(str(path), None, 1 << 30, 20) for path in (llama, deadly, llama, deadly)]
    assert [fault is None for _, fault in outcomes(steps)] == [True, False, True, False]


def test_models_add_gives_no_name_to_a_file_that_does_not_open(
    llama: Path, lora: Path, deadly: Path, tmp_path: Path
) -> None:
    def add(*args: object) -> None:
        CliRunner().invoke(models.command, ["add", *map(str, args)], catch_exceptions=False)

    with pytest.raises(ModelError, match="SIGABRT"):
        add("deadly", deadly)
    add("base", llama)
    add("good", lora, "--role", "adapter", "--base", "base")
    with pytest.raises(ModelError, match=r"not within the file bounds"):
        add("bad", tiny.truncated(lora, tmp_path / "bad.gguf"), "--role", "adapter", "--base", "base")
    assert {name for name, entry in Manifest.load().entries.items() if entry.own} == {"base", "good"}


def test_a_pull_leaves_nothing_of_a_file_that_does_not_open(deadly: Path) -> None:
    put(
        Entry(
            name="mine",
            title="",
            role="model",
            file="mine.gguf",
            licence="MIT",
            sources=(f"file:{deadly}",),
            own=True,
        )
    )
    with pytest.raises(PullError, match=r"what came: expected a model that opens.+SIGABRT"):
        CliRunner().invoke(models.command, ["pull", "mine"], catch_exceptions=False)
    assert not list(models_folder().glob("*.*f"))


def test_verify_opens_a_file_anew(llama: Path, deadly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGFT_EDGE_TRIAL", "off")
    for name, path in (("sound", llama), ("deadly", deadly)):
        CliRunner().invoke(models.command, ["add", name, str(path)], catch_exceptions=False)
    monkeypatch.delenv("SGFT_EDGE_TRIAL")
    run = CliRunner().invoke(models.command, ["verify", "sound", "deadly"])
    assert "sound: ok\n" in run.output
    assert f"deadly: {deadly}: expected a model that opens" in run.output
    assert isinstance(run.exception, ModelError)
    assert "not as expected: deadly" in str(run.exception)


def test_bench_measures_no_file_that_does_not_open(deadly: Path) -> None:
    with pytest.raises(ModelError, match="SIGABRT"):
        CliRunner().invoke(bench.command, ["--model", str(deadly)], catch_exceptions=False)


def test_where_llama_cpp_does_not_load_a_file_gets_its_name_untried(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken" / "llama_cpp"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('no llama.cpp for this processor')\n")
    monkeypatch.syspath_prepend(broken.parent)
    with pytest.raises(EngineError, match=r"no llama.cpp for this processor: run `sgft-edge doctor`"):
        try_out({llama: ()})
    run = CliRunner().invoke(models.command, ["add", "mine", str(llama)], catch_exceptions=False)
    assert "mine is tried when it is opened first" in run.stderr
    assert Manifest.load().get("mine").own


def test_a_source_that_brings_a_file_that_does_not_open_is_passed_over(llama: Path, deadly: Path) -> None:
    sources = (f"file:{deadly}", f"file:{llama}")
    entry = Entry(name="mine", title="", role="model", file="mine.gguf", licence="MIT", sources=sources, own=True)
    put(entry)
    found = pull(entry, None, lambda entry, file: strangers.try_entry(entry, file, Manifest.load()))
    assert found.read_bytes() == llama.read_bytes()
