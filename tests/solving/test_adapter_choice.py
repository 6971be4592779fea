"""Which LoRA a role plays with, and for which prompts it is on: tiny models, adapters whose files say their role."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from engines import TOLERANCE, Probe
from gguf import GGUFReader, GGUFWriter
from solvers import BIKES, PLAN, open_tiny

from sgft_edge import solve
from sgft_edge.errors import AdapterMismatch, ModelError, SgftError
from sgft_edge.host.files import models_folder
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.prompts import EXECUTE, GUIDE, WRITE_PROGRAM
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Sampling, Settings
from sgft_edge.solving import sizes
from sgft_edge.solving.adapters import PROMPTS_KEY, ROLE_KEY, AdapterFile
from sgft_edge.solving.cast import Cast
from sgft_edge.store import header, manifest, places
from sgft_edge.store.header import peek
from sgft_edge.store.manifest import Entry, Manifest, put

Pair = tuple[str | None, ...]
Loras = dict[str, Path]
ROLES = ("guide", "answerer", "solver", "guide+solver", "guide+answerer", "program", "guide+program")
STEPWISE, NEITHER = Settings(plan="stepwise"), (None, None)


def adapter_file(out: Path, base: Path, facts: dict[str, str | list[str]], seed: int = 1) -> Path:
    """A tiny LoRA with these metadata, before all others."""
    plain = GGUFReader(tiny.tiny_adapter(out.with_suffix(".plain"), base, seed=seed))
    writer = GGUFWriter(out, plain.fields["general.architecture"].contents())
    for key, value in facts.items():
        writer.add_string(key, value) if isinstance(value, str) else writer.add_array(key, value)
    for key in ("general.type", "adapter.type", "adapter.lora.alpha"):
        writer.add_key_value(key, plain.fields[key].contents(), plain.fields[key].types[0])
    for tensor in plain.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    return tiny._written(writer, out)


@pytest.fixture(scope="module")
def loras(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Loras:
    """Adapters of the tiny llama by the role that their files state: "unsaid" states none; "qwen2" is for that one."""
    folder = tmp_path_factory.mktemp("loras")
    found = {"unsaid": tiny_files / "lora.gguf"}
    for seed, role in enumerate(ROLES, start=3):
        facts = {PROMPTS_KEY: prompts.guide_digest("program" in role), ROLE_KEY: role}
        found[role] = adapter_file(folder / f"{role}.gguf", tiny_files / "llama.gguf", facts, seed)
    found["qwen2"] = adapter_file(folder / "qwen2.gguf", tiny_files / "qwen2.gguf", {ROLE_KEY: "answerer"})
    return found


def chosen(loras: Loras, guides: str, answerers: str = "auto") -> dict[str, object]:
    return {"adapter": loras.get(guides, guides), "answerer_adapter": loras.get(answerers, answerers)}


def files(cast: Cast) -> Pair:
    """The guide's and the answerer's adapter, and that for programs where there is one, by the names of their files.

    What a report says is what is loaded.
    """
    keys = ("adapter", "answerer_adapter", "program_adapter")
    named = tuple((name := cast.models.get(key)) and Path(name).stem for key in keys)
    answers = [cast.answerer.adapter_for(task) for task in (EXECUTE, WRITE_PROGRAM)]
    assert named[1:] == tuple(adapter and adapter.path.stem for adapter in answers)
    assert {named[0]} - {None} == {adapter.path.stem for adapter in cast.guide.adapters.values()}
    return named if named[2] else named[:2]


def test_a_file_says_what_it_was_trained_for(loras: Loras) -> None:
    read = {role: AdapterFile.read(path) for role, path in loras.items() if role != "qwen2"}
    assert {role: (found.tasks("guide"), found.tasks("answerer"), found.plan) for role, found in read.items()} == {
        "unsaid": ({GUIDE, EXECUTE}, {EXECUTE, WRITE_PROGRAM}, "first"),
        "guide": ({GUIDE}, set(), "first"),
        "answerer": (set(), {EXECUTE}, "first"),
        "solver": ({EXECUTE}, {EXECUTE}, "stepwise"),
        "guide+solver": ({GUIDE, EXECUTE}, {EXECUTE}, "stepwise"),
        "guide+answerer": ({GUIDE}, {EXECUTE}, "first"),
        "program": (set(), {WRITE_PROGRAM}, "first"),
        "guide+program": ({GUIDE}, {WRITE_PROGRAM}, "first"),
    }


def test_another_role_is_refused_in_one_line(llama: Path, loras: Loras, capsys: pytest.CaptureFixture[str]) -> None:
    for option, role, others in (
        ("--adapter", "answerer", "guide or solver"),
        ("--answerer-adapter", "guide", "answerer or solver or program"),
    ):
        assert solve.main([BIKES, "--guide", str(llama), option, str(loras[role])]) == 2
        complaint = f"{option}: expected an adapter trained as {others}, found {role} in {loras[role]}"
        assert capsys.readouterr() == ("", f"sgft-edge: error: {complaint}\n")


@pytest.mark.parametrize(
    ("adapters", "on_in"),
    [
        (("unsaid",), "sg"),
        (("guide",), "sg"),
        (("none", "answerer"), "exact, given"),
        (("solver",), "exact, given"),
        (("none", "program"), "program"),
    ],
)
def test_an_adapter_is_on_for_its_own_prompts_alone(
    llama: Path, loras: Loras, adapters: tuple[str, ...], on_in: str
) -> None:
    given = Question(BIKES, guidance=PLAN)
    cases = {"exact, given": given, "cot": BIKES, "direct": BIKES, "program": BIKES, "sg, given": given, "sg": BIKES}
    with open_tiny(llama) as bare, open_tiny(llama, **chosen(loras, *adapters)) as tuned:
        probes = [Probe(solver.cast.guide.engine) for solver in (bare, tuned)]
        for case, question in cases.items():
            for probe in probes:
                probe.rows, probe.logits = [], {}
            settings = Settings(case.partition(",")[0], max_tokens=12)
            texts = [solver.solve(question, settings).text for solver in (bare, tuned)]
            first, tuned_first = (probe.logits[0][0] for probe in probes)
            is_on = any(weights is not None for *_, weights in probes[1].rows)
            assert is_on == (case == on_in), case
            assert (np.abs(first - tuned_first).max() > TOLERANCE) == is_on, case
            assert is_on or texts[0] == texts[1], case


def test_each_role_takes_its_steps_under_its_own_adapter(llama: Path, loras: Loras) -> None:
    with open_tiny(llama, **chosen(loras, "solver", "answerer")) as solver:
        probe = Probe(solver.cast.guide.engine)
        own = [role.adapter_for(EXECUTE) for role in (solver.cast.guide, solver.cast.answerer)]
        for seed in range(80):  # until a step ends, so that the answerer has its turn
            solver.solve(BIKES, Settings("exact", max_tokens=1, sampling=Sampling(10.0, seed=seed)))
            used = {(slot, weights) for slot, _, _, weights in probe.rows if weights}
            assert used <= set(enumerate(own))
            if len(used) == 2:
                return
        pytest.fail("no seed ends a step")


@pytest.mark.parametrize(
    ("shipped", "adapters", "expected", "sequences"),
    [
        ([], ("none", "answerer"), (None, "answerer"), 2),
        ([], ("unsaid",), ("lora", None), 2),
        ([], ("unsaid", "unsaid"), ("lora", "lora", "lora"), 1),
        ([], ("guide", "answerer"), ("guide", "answerer"), 2),
        ([], ("solver", "answerer"), ("solver", "answerer"), 2),
        ([], ("guide+solver",), ("guide+solver", "guide+solver"), 1),
        ([], ("guide+answerer",), ("guide+answerer", "guide+answerer"), 2),
        (["guide"], ("auto",), ("guide", None), 1),
        (["answerer"], ("auto",), (None, "answerer"), 2),
        (["answerer", "guide"], ("auto",), ("guide", "answerer"), 2),
        (["answerer", "solver"], ("auto",), ("solver", "solver"), 1),
        (["unsaid"], ("auto",), NEITHER, 1),
        (["solver"], ("none",), NEITHER, 1),
        (["solver"], ("auto", "none"), ("solver", None), 2),
        (["solver"], ("guide",), ("guide", "solver"), 2),
        ([], ("guide", "program"), ("guide", None, "program"), 1),
        ([], ("guide+program",), ("guide+program", None, "guide+program"), 1),
        (["program"], ("auto",), (None, None, "program"), 1),
        (["program"], ("none",), NEITHER, 1),
        (["program"], ("guide", "none"), ("guide", None), 1),
        (["program", "guide+solver"], ("auto",), ("guide+solver", "guide+solver", "program"), 1),
        (["program", "answerer", "guide"], ("auto",), ("guide", "answerer", "program"), 2),
        (["program"], ("guide+answerer",), ("guide+answerer", "guide+answerer", "program"), 2),
    ],
)
def test_which_adapters_one_model_gets_and_whether_they_need_a_sequence_each(
    llama: Path, loras: Loras, shipped: list[str], adapters: tuple[str, ...], expected: Pair, sequences: int
) -> None:
    places.add("mine", llama)
    for role in shipped:
        places.add(role.replace("+", "-"), loras[role], role="adapter", base="mine")
    for guide, answerer in (("mine", None), (llama, "mine")):
        with open_tiny(guide, answerer=answerer, **chosen(loras, *adapters), settings=STEPWISE, parallel=2) as solver:
            cast, (engine,) = solver.cast, solver.cast.engines
            assert files(cast) == expected
            assert (cast.sequences(True), cast.sequences(False)) == ({engine: sequences}, {engine: 1})
            assert engine.slots == 2 * sequences
            assert cast.guide.shares_weights_with(cast.answerer, EXECUTE) == (sequences == 1)
            assert cast.auto == ("exact" if any(expected[:2]) else "program" if any(expected) else None)
            assert sum("these prompts" in warning for warning in cast.warnings) == ("lora" in expected)
            unused = expected[0] is not None and cast.guide.adapter_for(EXECUTE) is None
            assert any("off for plan stepwise" in warning for warning in cast.warnings) == unused


@pytest.mark.parametrize("measured", ["exact", "program", None])
def test_what_was_measured_goes_before_what_comes_with_the_model(
    llama: Path, loras: Loras, measured: str | None
) -> None:
    """An adapter that somebody names goes before both."""
    mine = Entry(name="mine", title="mine", role="model", file=llama.name, licence="MIT", auto=measured, own=True)
    put(replace(mine, sources=(f"file:{llama}",)))
    places.add("a-guide", loras["guide"], role="adapter", base="mine")
    for adapters, expected in (
        (("auto", "auto"), measured or "exact"),
        (("none", "none"), measured),
        (("guide", "auto"), "exact"),
        (("none", "program"), "program"),
    ):
        with open_tiny("mine", **chosen(loras, *adapters)) as solver:
            assert solver.cast.auto == expected, adapters


def test_auto_passes_over_other_bases_and_files_that_are_not_here(tiny_files: Path, loras: Loras) -> None:
    places.add("mine", tiny_files / "llama.gguf")
    places.add("other", tiny_files / "qwen2.gguf")
    places.add("a-solver", loras["solver"], role="adapter", base="other")
    put(Entry(name="b", title="b", role="adapter", file="b.gguf", licence="MIT", base="mine", own=True))
    with open_tiny("mine", adapter="auto") as solver:
        assert files(solver.cast) == NEITHER
    models_folder().mkdir()
    (models_folder() / "b.gguf").symlink_to(loras["solver"])
    with open_tiny("mine", adapter="auto") as solver:
        assert files(solver.cast) == ("b", "b")


def test_two_models_have_an_adapter_each(tiny_files: Path, loras: Loras) -> None:
    guide, answerer = tiny_files / "llama.gguf", tiny_files / "qwen2.gguf"
    places.add("theirs", answerer)
    places.add("tuned", loras["qwen2"], role="adapter", base="theirs")
    for adapter, expected in (("none", None), ("solver", "solver")):
        with open_tiny(guide, answerer=answerer, **chosen(loras, adapter)) as solver:
            assert files(solver.cast) == (expected, "qwen2")
            assert [engine.slots for engine in solver.cast.engines] == [1, 1]
            assert solver.solve(BIKES, Settings("exact", max_tokens=1)).text
    with pytest.raises(AdapterMismatch):
        open_tiny(guide, answerer=answerer, answerer_adapter=loras["solver"])


def test_one_adapter_by_two_paths_is_one_adapter(llama: Path, loras: Loras, tmp_path: Path) -> None:
    (tmp_path / "link.gguf").symlink_to(loras["solver"])
    with open_tiny(llama, adapter=loras["solver"], answerer_adapter=tmp_path / "link.gguf") as solver:
        assert solver.cast.guide.adapter_for(EXECUTE) is solver.cast.answerer.adapter_for(EXECUTE)


@pytest.mark.parametrize("opened_for", ["auto", "first", "stepwise"])
@pytest.mark.parametrize("role", ["none", "guide", "solver", "guide+solver"])
def test_plan_auto_is_that_of_opening_or_of_training(llama: Path, loras: Loras, role: str, opened_for: str) -> None:
    with open_tiny(llama, **chosen(loras, role), settings=Settings(plan=opened_for)) as solver:
        expected = opened_for if opened_for != "auto" else "stepwise" if "solver" in role else "first"
        for asked, planned in (("auto", expected), ("first", "first"), ("stepwise", "stepwise")):
            begins_with = next(iter(solver.stream(BIKES, Settings("exact", asked, max_tokens=1)))).kind
            assert (begins_with == "guidance") == (planned == "first"), asked


def test_peek_reads_whole_keys_whose_value_is_a_string(loras: Loras) -> None:
    found = {key: peek(loras["guide+solver"], key) for key in (ROLE_KEY, PROMPTS_KEY, "general.type")}
    assert list(found.values()) == ["guide+solver", prompts.guide_digest(), "adapter"]
    for absent in ("sgft", "sgft.rol", "gft.role", "sgft.role ", "adapter.lora.alpha", "guide+solver", "", "é"):
        assert peek(loras["guide+solver"], absent) is None


def test_peek_refuses_a_file_that_is_cut_off_anywhere(loras: Loras, tmp_path: Path) -> None:
    whole, cut = loras["guide+solver"].read_bytes(), tmp_path / "cut.gguf"
    for length in range(4, whole.index(b"guide+solver") + len("guide+solver") + 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="damaged"):
            peek(cut, ROLE_KEY)


def test_a_huge_length_is_survived(llama: Path, loras: Loras, tmp_path: Path) -> None:
    whole, damaged = loras["solver"].read_bytes(), tmp_path / "damaged.gguf"
    for length in (2**16, 2**31, 2**63, 2**64 - 1):
        damaged.write_bytes(whole.replace(struct.pack("<Q", 6) + b"solver", struct.pack("<Q", length) + b"solver"))
        with pytest.raises(ModelError, match="damaged"):
            peek(damaged, ROLE_KEY)
        with pytest.raises(SgftError):
            open_tiny(llama, adapter=damaged)


@pytest.mark.parametrize("role", ["gui\nde", "\x1b[2J", "planner" * 9000], ids=["two lines", "escape", "long"])
def test_a_refusal_is_a_short_printable_line(llama: Path, tmp_path: Path, role: str) -> None:
    wrong = adapter_file(tmp_path / "wrong.gguf", llama, {ROLE_KEY: role})
    with pytest.raises(SgftError) as found:
        open_tiny(llama, adapter=wrong)
    assert str(found.value).isprintable()
    assert len(str(found.value)) < 500


@pytest.mark.parametrize(
    ("before", "role"),
    [("x" * 65536, "solver"), ("x" * 65412, "guide+solver"), ([ROLE_KEY, "8 bytes."], "guide")],
    ids=["after 64 KiB", "across 64 KiB", "after a list"],
)
def test_peek_reads_what_llama_cpp_reads(llama: Path, tmp_path: Path, before: str | list[str], role: str) -> None:
    path = adapter_file(tmp_path / "adapter.gguf", llama, {"x": before, ROLE_KEY: role})
    with open_tiny(llama) as solver:
        assert solver.cast.guide.engine.adapter(path).metadata(ROLE_KEY) == role
    assert peek(path, ROLE_KEY) == role


@pytest.mark.parametrize("content", [b"", b"GGU", b"FUGG" + bytes(100), None])
def test_peek_refuses_what_is_not_gguf(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file.gguf"
    path.mkdir() if content is None else path.write_bytes(content)
    for wrong in (path, tmp_path / "absent.gguf"):
        with pytest.raises(ModelError, match=wrong.name):
            peek(wrong, ROLE_KEY)


def test_opening_reads_the_manifests_and_each_header_once(
    tiny_files: Path, loras: Loras, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.add("mine", tiny_files / "llama.gguf")
    for role in ("answerer", "guide", "program"):
        places.add(role, loras[role], role="adapter", base="mine")
    manifest._read_manifest.cache_clear()
    loads, tables, headers = list[str](), list[str](), list[str]()
    load, read_entries, read_header = Manifest.load, manifest.read_entries, header.read_header

    def loaded() -> Manifest:
        loads.append("")
        return load()

    def entries(path: Path, *, own: bool) -> dict[str, Entry]:
        tables.append(path.name)
        return read_entries(path, own=own)

    def read(path: Path) -> header.Header:
        headers.append(path.name)
        return read_header(path)

    monkeypatch.setattr(Manifest, "load", staticmethod(loaded))
    monkeypatch.setattr(manifest, "read_entries", entries)
    for module in (header, sizes):
        monkeypatch.setattr(module, "read_header", read)
    with open_tiny("mine", adapter="auto") as solver:
        assert files(solver.cast) == ("guide", "answerer", "program")
    assert tables == ["manifest.toml", "models.toml"]
    assert sorted(headers) == ["answerer.gguf", "guide.gguf", "llama.gguf", "program.gguf"]
    assert len(loads) == 1
