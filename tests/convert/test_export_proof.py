"""What stands between an export and its folder: checks that catch wrong files, and what is told about right ones."""

import dataclasses
import hashlib
import importlib.metadata
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import hf
import pytest
from exports import REPOSITORY, SCRIPT, adapted, assert_alike, card, changed, load, metadata, remarks, workshop

from convert import architectures, base, lora_gguf, pipeline, vocabulary
from convert.architectures import Layout
from convert.export_gguf import main
from sgft_edge import Solver, models
from sgft_edge.errors import ModelError
from sgft_edge.llama.engine import Engine
from sgft_edge.reasoning import prompts
from sgft_edge.solving.adapters import PROMPTS_KEY
from sgft_edge.store import places
from sgft_edge.store.manifest import Manifest, read_entries


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with workshop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


# ---------------------------------------------------------------- wrong files are caught


def unpaired_rows(patch: pytest.MonkeyPatch) -> None:
    """Queries and keys as transformers has them."""
    patch.setattr(Layout, "rows", lambda self, name, tensor: tensor)


def unpaired_adapter(patch: pytest.MonkeyPatch) -> None:
    """The same in the adapter's file alone."""

    class Unpaired(Layout):
        def rows(self, name, tensor):
            return tensor

    patch.setattr(lora_gguf, "Layout", Unpaired)


def plain_scale(patch: pytest.MonkeyPatch) -> None:
    """alpha / rank for every adapter."""
    patch.setattr(lora_gguf, "math", SimpleNamespace(isclose=lambda *_, **__: True))


def no_offset(patch: pytest.MonkeyPatch) -> None:
    """Gemma's norms without the one that transformers adds."""
    wrong = dataclasses.replace(architectures.ARCHITECTURES["Gemma3ForCausalLM"], norm_offset=0.0)
    patch.setitem(architectures.ARCHITECTURES, "Gemma3ForCausalLM", wrong)


def lost_adapter(patch: pytest.MonkeyPatch) -> None:
    """Merging gives back the base."""
    patch.setattr(pipeline, "merge", lambda model: model.unload())


def in_tokenizer(key: str, change: Callable) -> Callable[[pytest.MonkeyPatch], None]:
    """A sabotage of one key of the tokenizer's metadata."""
    right = base.Base.tokenizer

    def wrong(self, *args):
        made = right(self, *args)
        value = (
            made.get(f"tokenizer.{key}") or made["tokenizer.ggml.add_bos_token"]
        )  # a key that is not there is a bool
        return made | {f"tokenizer.{key}": dataclasses.replace(value, value=change(value.value))}

    return lambda patch: patch.setattr(base.Base, "tokenizer", wrong)


def swapped(tokens: list[str]) -> list[str]:
    """1 is 2, and 2 is 1."""
    other = {"1": "2", "2": "1"}
    return [other.get(token, token) for token in tokens]


CAUGHT = {
    "rows": ("llama", (), unpaired_rows, "the unquantized file against transformers: relative error"),
    "rows of a merged model": ("lora", (), unpaired_rows, "the merged file against PEFT: relative error"),
    "rows of an adapter": ("lora", ("--format", "adapter"), unpaired_adapter, "base + adapter against PEFT: relative"),
    "scale": ("rslora", ("--format", "both"), plain_scale, "base + adapter against PEFT: relative error"),
    "norms": ("gemma3", (), no_offset, "the unquantized file against transformers: relative error"),
    "adapter": ("lora", (), lost_adapter, "the merged file against PEFT: relative error"),
    "tokens": ("llama", (), in_tokenizer("ggml.tokens", swapped), "token ids of hard strings: "),
    "tokens under an adapter": ("lora", (), in_tokenizer("ggml.tokens", swapped), "token ids of hard strings: "),
    "merges": ("qwen2", (), in_tokenizer("ggml.merges", lambda merges: merges[::-1]), "token ids of hard strings: "),
    "BOS": ("mistral", (), in_tokenizer("ggml.add_bos_token", lambda _: False), "token ids of hard strings: 0 of 33"),
    "space": ("mistral", (), in_tokenizer("ggml.add_space_prefix", lambda _: False), "token ids of hard strings: "),
    "template": (
        "llama",
        (),
        in_tokenizer("chat_template", lambda text: text.replace("<|im_end|>\\n", "<|im_end|>")),
        "token ids of chats: 0 of 4 equal",
    ),
}


@pytest.mark.parametrize("wrong", CAUGHT)
def test_wrong_files_are_not_exported(shop, monkeypatch, wrong):
    name, options, sabotage, complaint = CAUGHT[wrong]
    sources = {"lora": shop.lora, "rslora": lambda: shop.lora("rslora", use_rslora=True)}
    source = sources.get(name, lambda: shop.base(name))()
    sabotage(monkeypatch)
    error = shop.refusal(source, *options)
    assert error.startswith("nothing was exported: ")
    assert complaint in error


def test_adapter_that_does_next_to_nothing(shop, tmp_path):
    faint = changed(shop.lora(), tmp_path / "faint", "lora_B", change=lambda x: x * 1e-6)
    for form in ("merged", "adapter"):
        found = r"the adapter changes the base: relative change \d.\de-0[5-9], expected at least 0.0001"
        assert re.search(found, shop.refusal(faint, "--format", form))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--max-kld", "1e-9"), r"Q4_0 against the unquantized: KLD 0\.\d+.*, expected KLD at most 1e-09, "),
        (("--min-agreement", "1.0"), r"Q4_0 .*top-1 agreement 0\.\d+ \(.*\), expected .* agreement at least 1"),
        (("--max-logit-error", "1e-12"), r"the unquantized file .*, expected relative error at most 1e-12"),
    ],
)
def test_limits(shop, options, complaint):
    assert re.search(complaint, shop.refusal(shop.base(), "--quant", "Q4_0", "--min-agreement", "0", *options))


def test_without_verification(shop, tmp_path, monkeypatch):
    """What would be caught is exported, and the card says that nobody looked."""
    unpaired_rows(monkeypatch)
    assert shop.export(shop.base(), tmp_path / "out", "--no-verify", "--quant", "F32") == 0
    assert card(tmp_path / "out")["proof"]["checks"] == []
    assert "None: exported with `--no-verify`." in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(AssertionError):
        assert_alike(load(shop.base()), tmp_path / "out" / "llama-F32.gguf")


def test_failed_export_leaves_the_old_one(shop, tmp_path):
    out = tmp_path / "place" / "out"
    assert shop.export(shop.base(), out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert shop.export(shop.base(), out, "--quant", "F32") == 2
    assert shop.export(shop.base(), out, "--force", "--max-kld", "1e-9") == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert shop.export(shop.base(), out, "--force", "--quant", "F32") == 0
    assert "llama-Q8_0.gguf" not in {path.name for path in out.iterdir()}
    assert [path.name for path in out.parent.iterdir()] == ["out"]


# ---------------------------------------------------------------- where an export came from


@dataclasses.dataclass(frozen=True)
class Recorded:
    """An adapter with the record of its training, exported by the command from another folder, by relative paths."""

    adapter: Path
    record: dict
    out: Path
    arguments: list[str]
    run: subprocess.CompletedProcess

    @property
    def files(self) -> dict[str, Path]:
        names = {"F32": "recorded-F32", "Q4_K_M": "recorded-Q4_K_M", "adapter": "recorded-lora-F16"}
        return {kind: self.out / f"{name}.gguf" for kind, name in names.items()}


@pytest.fixture(scope="module")
def recorded(shop):
    folder = shop.base()
    tokenizer = vocabulary.from_folder(folder, json.loads((folder / "config.json").read_text()))
    digests = {"digest": base.find_base(str(folder)).digest(), "tokenizer_digest": vocabulary.digest(tokenizer)}
    record = hf.training_record(**digests) | {"prompts_digest": prompts.guide_digest()}
    adapter = shutil.copytree(shop.lora(), shop.folder / "recorded")
    (adapter / "training.json").write_text(json.dumps(record))
    arguments = ["recorded", "--out", "exports/recorded", "--format", "both", "--quant", "F32,Q4_K_M"]
    arguments += ["--verify-data", "problems.jsonl", "--imatrix", "problems.jsonl", "--min-agreement", "0"]
    command = [sys.executable, str(SCRIPT), *arguments]
    run = subprocess.run(command, cwd=shop.folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return Recorded(adapter, record, shop.folder / "exports" / "recorded", arguments, run)


def test_command_says_what_was_proven(recorded):
    lines = recorded.run.stdout.splitlines()
    assert [line[:5] for line in lines[:6]] == ["ok   "] * 6
    assert lines[-3:] == [
        "adapter: exports/recorded/recorded-lora-F16.gguf",
        "model: exports/recorded/recorded-F32.gguf",
        "model: exports/recorded/recorded-Q4_K_M.gguf",
    ]
    table = "\n".join(lines[6:-3])
    assert re.search(r"TYPE +MB +BITS/WEIGHT +KLD +TOP-1 +PERPLEXITY +TENSORS", table)
    assert re.search(r"Q4_K_M +\d.\d +4\.\d\d +0\.\d{4} +0\.\d{3} +\d+\.\d{3} +13 Q4_K, 5 F32, 3 Q6_K", table)


def test_command_shows_progress_and_no_remarks_of_its_libraries(recorded):
    assert "importance matrix: 2 of 2" in recorded.run.stderr
    assert remarks(recorded.run.stderr) == []


def test_folder_and_card(shop, recorded):
    names = {path.name for path in recorded.files.values()}
    others = {"recorded-imatrix.gguf", "card.json", "README.md", "Modelfile", "models.toml"}
    assert {path.name for path in recorded.out.iterdir()} == names | others
    told = card(recorded.out)
    for path in recorded.files.values():
        role = "adapter" if "lora" in path.name else "model"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert told["files"][path.name] == {"role": role, "bytes": path.stat().st_size, "sha256": digest}
    assert told["files"].keys() == names
    origin = told["origin"]
    weights = hashlib.sha256((shop.base() / "model.safetensors").read_bytes()).hexdigest()
    assert origin["base"] == "llama"
    assert origin["base_digest"] == hashlib.sha256(f"model.safetensors {weights}".encode()).hexdigest()
    adapter = (recorded.adapter / "adapter_model.safetensors").read_bytes()
    assert (origin["adapter"], origin["adapter_digest"]) == ("recorded", hashlib.sha256(adapter).hexdigest())
    assert origin["training"] == recorded.record
    assert origin["prompts_digest"] == prompts.guide_digest()
    assert origin["imatrix"] == "problems.jsonl"
    assert origin["warnings"] == []
    assert origin["command"] == shlex.join(["python", "convert/export_gguf.py", *recorded.arguments])
    for package in ("torch", "transformers", "peft", "gguf", "llama-cpp-python"):
        assert origin["versions"][package] == importlib.metadata.version(package)
    assert [row["type"] for row in told["proof"]["quantized"]] == ["Q4_K_M"]


def test_command_is_that_of_the_call(shop, tmp_path):
    """Of `main(argv)` as well, whatever the process is called with."""
    assert shop.export(shop.base(), tmp_path / "out", "--quant", "F32", "--no-verify") == 0
    given = shop.arguments(shop.base(), tmp_path / "out", "--quant", "F32", "--no-verify")
    assert card(tmp_path / "out")["origin"]["command"] == shlex.join(["python", "convert/export_gguf.py", *given])


def test_readme(recorded):
    text = (recorded.out / "README.md").read_text()
    told = card(recorded.out)
    for expected in (
        "Base: `llama`",
        told["origin"]["base_digest"][:16],
        told["origin"]["adapter_digest"][:16],
        "d" * 64,
        '"rate": 0.0002',
        importlib.metadata.version("transformers"),
        told["origin"]["command"],
        "sgft-edge models add",
        *told["files"],
        *(f"| {check['name']} | {check['found']} |" for check in told["proof"]["checks"]),
        f"| Q4_K_M | {told['proof']['quantized'][0]['bits_per_weight']:.2f} |",
    ):
        assert expected in text


def test_modelfile(shop, recorded, tmp_path):
    lines = (recorded.out / "Modelfile").read_text()
    file = re.search(r"^FROM \./(.*)$", lines, re.MULTILINE)[1]
    assert recorded.out / file in recorded.files.values()
    assert f'SYSTEM """{prompts.SYSTEM}"""' in lines
    assert shop.export(recorded.adapter, tmp_path / "out", "--format", "adapter") == 0
    assert "\nADAPTER ./recorded-lora-F16.gguf\n" in (tmp_path / "out" / "Modelfile").read_text()


def test_metadata_tell_the_same(recorded):
    origin = card(recorded.out)["origin"]
    for kind, path in recorded.files.items():
        found = metadata(path)
        assert found["general.type"] == ("adapter" if kind == "adapter" else "model")
        assert found["general.name"] == "recorded"
        assert found["general.base_model.0.name"] == "llama"
        assert found["sgft.base"] == "llama"
        for key in ("base_digest", "adapter_digest", "prompts_digest", "imatrix", "command"):
            assert found[f"sgft.{key}"] == origin[key]
        assert json.loads(found["sgft.training"]) == recorded.record
        assert json.loads(found["sgft.versions"]) == origin["versions"]


def test_no_path_of_this_machine(shop, recorded):
    """The adapter's own configuration names its base by such a path; the command was given none."""
    assert str(shop.folder) in (recorded.adapter / "adapter_config.json").read_text()
    for path in recorded.out.iterdir():
        content = path.read_bytes()
        assert [place for place in (shop.folder, REPOSITORY, sys.prefix) if str(place).encode() in content] == []


def test_runtime_reads_the_prompts_digest(shop, recorded):
    engine = Engine(shop.plain(), slots=1, window=256)
    try:
        assert engine.adapter(recorded.files["adapter"]).metadata(PROMPTS_KEY) == prompts.guide_digest()
    finally:
        engine.close()
    with Solver.open(shop.plain(), adapter=recorded.files["adapter"]) as solver:
        assert solver.cast.warnings == ()


def test_models_add_takes_the_folder(shop, recorded, capsys):
    with pytest.raises(ModelError):
        places.resolve("recorded-q4_k_m")
    assert models.main(["add", "llama", str(shop.plain())]) == 0
    assert models.main(["add", str(recorded.out)]) == 0
    assert f"recorded-f32: {recorded.files['F32']}\n" in capsys.readouterr().out
    known = Manifest.load()
    for kind, name in (("F32", "recorded-f32"), ("Q4_K_M", "recorded-q4_k_m"), ("adapter", "recorded-lora-f16")):
        assert places.resolve(name).samefile(recorded.files[kind])
        assert places.state(known.get(name)).verified == "yes"
    adapter = known.get("recorded-lora-f16")
    assert (adapter.role, adapter.base, adapter.architecture) == ("adapter", "llama", "llama")
    assert adapter.prompts_digest == prompts.guide_digest()
    with Solver.open("llama", adapter="auto") as solver:
        assert solver.cast.models["adapter"] == "recorded-lora-F16.gguf"


def test_models_add_takes_an_adapter_of_any_base(shop, tmp_path):
    """A base has a name that `models add` takes, whatever its folder is called."""
    folder = shop.base("llama", "Tiny Llama_v1.0")
    assert shop.export(shop.lora("capital-lora", folder.name), tmp_path / "out", "--format", "adapter") == 0
    (entry,) = read_entries(tmp_path / "out" / "models.toml", own=True).values()
    assert models.main(["add", entry.base, str(shop.plain())]) == 0
    assert models.main(["add", str(tmp_path / "out")]) == 0
    assert places.resolve("capital-lora-lora-f16").samefile(tmp_path / "out" / "capital-lora-lora-F16.gguf")


def test_other_weights_than_those_of_the_training_are_a_warning(shop, recorded, tmp_path, capsys):
    """Shapes and tokens are the same, so the base may be one that was trained further."""
    other = changed(shop.base(), tmp_path / "other", "lm_head", change=lambda x: x * 1.01)
    assert shop.export(recorded.adapter, tmp_path / "out", "--base", other) == 0
    digest, found = recorded.record["base"]["digest"], card(tmp_path / "out")["origin"]["base_digest"]
    assert digest != found
    warning = f"the base's weights ({found[:12]}) are not those that the adapter was trained on ({digest[:12]})"
    assert remarks(capsys.readouterr().err) == [f"export_gguf: warning: {warning}"]
    assert card(tmp_path / "out")["origin"]["warnings"] == [warning]
    assert f"Warning: {warning}" in (tmp_path / "out" / "README.md").read_text()


# ---------------------------------------------------------------- broken off


def test_killed_export_leaves_nothing_under_its_name(shop, tmp_path):
    out = tmp_path / "place" / "out"
    types = "F16,Q8_0,Q4_K_M,Q5_K_M,Q6_K,Q3_K_M,Q2_K,IQ4_XS,IQ4_NL"
    arguments = shop.arguments(shop.lora(), out, "--quant", types, "--min-agreement", "0")
    process = subprocess.Popen([sys.executable, str(SCRIPT), *arguments], cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not list(out.parent.glob(".out.part/*Q8_0.gguf")):
        time.sleep(0.001)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ".out.part" in {path.name for path in out.parent.iterdir()}
    assert not out.exists()
    assert main(shop.arguments(shop.lora(), out, "--quant", "F32")) == 0
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert_alike(adapted(shop.base(), shop.lora()), out / "lora-F32.gguf")


def test_ctrl_c(shop, tmp_path, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.quantize, "quantize", interrupt)
    assert shop.export(shop.base(), tmp_path / "place" / "out") == 130
    assert list((tmp_path / "place").iterdir()) == []


def test_source_is_never_replaced(shop, tmp_path):
    """Not even with --force: an export in the place of what it is made from could not be made again."""
    lora = shutil.copytree(shop.lora(), tmp_path / "runs" / "lora")
    before = {path.name: path.read_bytes() for path in lora.iterdir()}
    for out in (lora, lora.parent):
        assert shop.export(lora, out, "--force") == 2
        assert {path.name: path.read_bytes() for path in lora.iterdir()} == before
