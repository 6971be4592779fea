"""Files that are damaged or do not fit, and engines that are closed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from engines import (
    written,
)
from texts import TEXT, written_fresh

from sgft_edge.errors import (
    AdapterMismatch,
)
from sgft_edge.llama.engine import Engine

LOAD = """
import json, sys
from pathlib import Path
from sgft_edge.reasoning.backend import Usage
from sgft_edge.llama.engine import Engine
from sgft_edge.errors import SgftError

base, kind, *paths = sys.argv[1:]
for path in paths:
    try:
        engine = Engine(Path(base if kind == "adapter" else path), window=256)
        weights = engine.adapter(Path(path)) if kind == "adapter" else None
        sequence = engine.acquire()
        sequence.begin(engine.model.tokenize("hello"), weights, Usage())
        engine.submit(sequence.complete(2))
        while engine.busy:
            engine.step()
        engine.close()
        found = ["works", ""]
    except SgftError as e:
        found = [type(e).__name__, str(e)]
    print(json.dumps(found), flush=True)
"""


def loaded(base: Path, kind: str, files: dict[str, Path]) -> dict[str, list[str]]:
    """What comes of loading each file, in a process of its own: llama.cpp may end it."""
    argv = [sys.executable, "-c", LOAD, str(base), kind, *map(str, files.values())]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{list(files)[len(found)]} ended the process: {done.stderr[-500:]}"
    return dict(zip(files, found, strict=True))


def cut(path: Path, out: Path, size: int) -> Path:
    out.write_bytes(path.read_bytes()[:size])
    return out


def patched(path: Path, out: Path, offset: int, new: bytes) -> Path:
    data = path.read_bytes()
    out.write_bytes(data[:offset] + new + data[offset + len(new) :])
    return out


def broken(path: Path, folder: Path) -> dict[str, Path]:
    huge = (2**62).to_bytes(8, "little")
    folder.mkdir()
    return {
        "truncated": tiny.truncated(path, folder / "truncated.gguf"),
        "corrupted": tiny.corrupted(path, folder / "corrupted.gguf"),
        "text": tiny.not_gguf(folder / "text.gguf"),
        "empty": cut(path, folder / "empty.gguf", 0),
        "magic alone": cut(path, folder / "magic.gguf", 4),
        "header alone": cut(path, folder / "header.gguf", 24),
        "metadata cut": cut(path, folder / "metadata.gguf", 200),
        "last byte missing": cut(path, folder / "last.gguf", path.stat().st_size - 1),
        "future version": patched(path, folder / "version.gguf", 4, (99).to_bytes(4, "little")),
        "tensor count": patched(path, folder / "tensors.gguf", 8, huge),
        "key count": patched(path, folder / "keys.gguf", 16, huge),
        "key length": patched(path, folder / "length.gguf", 24, huge),
        "unknown architecture": tiny.wrong_architecture(folder / "architecture.gguf"),
        "missing": folder / "missing.gguf",
        "a folder": folder,
    }


@pytest.fixture(scope="module")
def bad_models(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("bad")
    llama = tiny_files / "llama.gguf"
    files = broken(llama, folder / "models") | {"an adapter": tiny_files / "lora.gguf", "sound": llama}
    return loaded(llama, "model", files)


@pytest.fixture(scope="module")
def bad_adapters(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("bad")
    llama, mamba = tiny_files / "llama.gguf", tiny_files / "mamba.gguf"
    files = broken(tiny_files / "lora.gguf", folder / "adapters")
    files["of qwen2"] = tiny.tiny_adapter(folder / "qwen2.gguf", tiny_files / "qwen2.gguf")
    files["of mamba"] = tiny.tiny_adapter(folder / "mamba.gguf", mamba, architecture="llama")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "FEED_FORWARD", 768)
        wide = tiny.tiny_model(folder / "wide.gguf")
        files["of another size"] = tiny.tiny_adapter(folder / "of_wide.gguf", wide)
    return loaded(llama, "adapter", files | {"a model": llama, "sound": tiny_files / "lora.gguf"})


def test_a_bad_model_file_is_an_error_of_one_line(bad_models: dict[str, list[str]]) -> None:
    assert bad_models.pop("sound")[0] == "works"
    for name, (kind, message) in bad_models.items():
        assert kind == "ModelError", name
        assert "\n" not in message, name


def test_a_bad_adapter_file_is_an_error_of_one_line(bad_adapters: dict[str, list[str]]) -> None:
    assert bad_adapters.pop("sound")[0] == "works"
    for name, (kind, message) in bad_adapters.items():
        expected = (
            ("ModelError",) if name in ("text", "empty", "missing", "a folder") else ("AdapterMismatch", "ModelError")
        )
        assert kind in expected, name
        assert "\n" not in message, name
    assert {bad_adapters[name][0] for name in ("of qwen2", "of mamba", "of another size")} == {"AdapterMismatch"}


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("truncated", "not within the file bounds"),
        ("last byte missing", "not within the file bounds"),
        ("unknown architecture", "unknown model architecture: 'nonesuch'"),
        ("an adapter", "it is a LoRA: give it as an adapter"),
        ("text", "is not a GGUF file"),
        ("missing", "No such file"),
    ],
)
def test_the_error_says_what_is_wrong_with_a_model(bad_models: dict[str, list[str]], file: str, reason: str) -> None:
    assert reason in bad_models[file][1]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("truncated", "not within the file bounds"),
        ("of qwen2", "arch mismatch"),
        ("of mamba", "does not exist in base model"),
        ("of another size", "incorrect shape"),
        ("a model", "expect general.type to be 'adapter'"),
    ],
)
def test_the_error_says_what_is_wrong_with_an_adapter(
    bad_adapters: dict[str, list[str]], file: str, reason: str
) -> None:
    assert reason in bad_adapters[file][1]


def test_a_refused_adapter_leaves_the_engine_usable(engine: Engine, tiny_files: Path, tmp_path: Path) -> None:
    before = written(engine, TEXT)
    with pytest.raises(AdapterMismatch):
        engine.adapter(tiny.tiny_adapter(tmp_path / "qwen2.gguf", tiny_files / "qwen2.gguf"))
    assert written(engine, TEXT) == before


def test_a_path_need_not_be_utf8(llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "mod\udcffel.gguf"
    path.write_bytes(llama.read_bytes())
    engine = Engine(path, window=256)
    assert written(engine, TEXT) == written_fresh(llama, TEXT)
    engine.close()


CLOSED = """
import sys
from pathlib import Path
from sgft_edge.reasoning.backend import Usage
from sgft_edge.llama.engine import Engine
from sgft_edge.errors import EngineError

def refused(action):
    try:
        action()
    except EngineError as e:
        print("refused", e)

engine = Engine(Path(sys.argv[1]), window=256)
sequence = engine.acquire()
sequence.begin(engine.model.tokenize("hello"), None, Usage())
engine.submit(sequence.complete(9))
engine.step()
engine.close()
engine.close()
refused(lambda: engine.submit(sequence.complete(9)) or engine.step())
refused(lambda: engine.model.handle)
refused(lambda: engine.context.handle)
sequence.close()
print("closed")
"""


def test_a_closed_engine_is_an_error_and_not_a_crash(llama: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CLOSED, str(llama)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.splitlines()[-1] == "closed"
    assert done.stdout.count("refused") == 3
