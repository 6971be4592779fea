"""Where files lie, their digests, and naming files of one's own; no network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sgft_edge.errors import ModelError, ModelMissing
from sgft_edge.host.files import cache_folder, config_folder, models_folder
from sgft_edge.store import digests, places
from sgft_edge.store.manifest import Entry, Manifest, put, remove


def download(entry: Entry) -> Path:
    models_folder().mkdir(exist_ok=True)
    path = models_folder() / entry.file
    path.write_bytes(b"GGUF")
    return path


def test_unknown_name_gets_suggestions():
    with pytest.raises(ModelError, match=r"unknown model 'smolm2' \(did you mean smollm2"):
        places.resolve("smolm2")


def test_resolve_names():
    put(Entry(name="tiny", title="Tiny", role="model", file="tiny.gguf", licence="MIT", own=True))
    with pytest.raises(ModelMissing, match="tiny is not on this machine: run `sgft-edge models pull tiny`"):
        places.resolve("tiny")
    path = download(Manifest.load().get("tiny"))
    assert places.resolve("tiny") == path == models_folder() / "tiny.gguf"


def test_resolve_refuses_a_file_of_the_wrong_size():
    path = download(Manifest.load().get("smollm2"))
    with pytest.raises(ModelError, match=rf"has {path.stat().st_size} bytes, smollm2 has 98362432: run"):
        places.resolve("smollm2")


def test_resolve_paths(gguf, monkeypatch):
    monkeypatch.chdir(gguf.parent)
    for path in (gguf, str(gguf), gguf.name, f".{os.sep}{gguf.name}", Path(gguf.name)):
        assert places.resolve(path).samefile(gguf)
    for path in ("absent.gguf", "models/smollm2", Path("smollm2"), str(gguf.parent) + os.sep):
        with pytest.raises(ModelError, match="no model file at"):
            places.resolve(path)


def test_entry_for(gguf):
    assert places.entry_for("smollm2") == Manifest.load().get("smollm2")
    assert places.entry_for("absent") is None
    assert places.entry_for(gguf) is None
    entry = places.add("mine", gguf)
    twin = gguf.with_name("twin.gguf")
    shutil.copyfile(gguf, twin)
    assert places.entry_for("mine") == places.entry_for(gguf) == places.entry_for(twin) == entry
    twin.write_bytes(gguf.read_bytes().swapcase())  # the same size
    assert places.entry_for(twin) is None


def test_file_digest_is_remembered_until_the_file_changes(gguf):
    digest, content = digests.file_digest(gguf), gguf.read_bytes()
    status = gguf.stat()
    gguf.write_bytes(content.swapcase())
    os.utime(gguf, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests.file_digest(gguf) == digest  # believed: the same size and time
    assert digests.file_digest(gguf, fresh=True) != digest
    gguf.write_bytes(content)
    os.utime(gguf, ns=(0, 0))
    assert digests.file_digest(gguf) == digest


@pytest.mark.parametrize("damage", ["{", "[]", '{"PATH": 1}', '{"PATH": [1]}', '{"PATH": [SIZE, TIME]}', "\x00"])
def test_file_digest_survives_a_damaged_cache(gguf, damage):
    status, key = gguf.stat(), json.dumps(str(gguf.resolve()))
    damage = damage.replace('"PATH"', key).replace("SIZE", str(status.st_size)).replace("TIME", str(status.st_mtime_ns))
    digest = digests.file_digest(gguf)
    (cache_folder() / "digests.json").write_text(damage)
    assert digests.file_digest(gguf) == digest
    assert json.loads((cache_folder() / "digests.json").read_text())[str(gguf.resolve())][2] == digest


def test_file_digest_does_without_a_cache(gguf, monkeypatch):
    monkeypatch.setenv("SGFT_EDGE_CACHE", str(gguf / "no folder can be in a file"))
    assert digests.file_digest(gguf) == digests.file_digest(gguf)


def test_add_and_remove(gguf):
    first = places.add("mine", gguf)
    places.add("style", gguf, role="adapter", base="mine", licence="MIT")
    assert Manifest.load().get("mine") == first
    assert places.resolve("mine") == gguf
    assert digests.trusted_digest(first) == digests.file_digest(gguf)
    assert not models_folder().exists()
    with pytest.raises(ModelError, match=r"'mine' exists: .* --force"):
        places.add("mine", gguf)
    remove("mine")
    assert "mine" not in Manifest.load().entries
    assert Manifest.load().get("style").base == "mine"
    with pytest.raises(ModelError, match="has no model 'mine'"):
        remove("mine")


def test_add_replaces_a_packaged_name_and_remove_restores_it(gguf):
    packaged = Manifest.load().get("smollm2")
    places.add("smollm2", gguf, force=True)
    assert places.resolve("smollm2") == gguf
    remove("smollm2")
    assert Manifest.load().get("smollm2") == packaged


def test_add_keeps_the_rank_of_what_it_replaces_or_is(gguf):
    other = gguf.with_name("other.gguf")
    other.write_bytes(b"GGUF, but another")
    known = Manifest.load().entries
    assert places.add("smollm2", gguf, force=True).rank == known["smollm2"].rank
    assert places.add("twin", gguf).rank == known["smollm2"].rank
    assert places.add("qwen2.5-coder-0.5b", gguf, force=True).rank == known["qwen2.5-coder-0.5b"].rank
    assert places.add("other", other).rank is None


def test_add_refuses(gguf):
    with pytest.raises(ModelError, match="unknown model 'smollm'"):
        places.add("style", gguf, role="adapter", base="smollm")
    with pytest.raises(ModelError, match="cannot read"):
        places.add("mine", gguf.with_name("absent.gguf"))
    gguf.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="not a GGUF file"):
        places.add("mine", gguf)
    assert not config_folder().exists()


def test_add_says_that_it_cannot_write(gguf, monkeypatch):
    nowhere = gguf.with_name("nowhere")
    nowhere.symlink_to(gguf.with_name("absent") / "absent")  # refuses root, too
    monkeypatch.setenv("SGFT_EDGE_CONFIG", str(nowhere))
    with pytest.raises(ModelError, match=r"cannot write .*models\.toml"):
        places.add("mine", gguf)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such file names")
def test_add_refuses_a_path_that_toml_cannot_hold(gguf):
    odd = gguf.rename(os.fsdecode(os.fsencode(gguf.parent) + b"/\xff.gguf"))
    with pytest.raises(ModelError, match="not valid Unicode"):
        places.add("mine", odd)


def test_import_is_light():
    code = "import sys, sgft_edge.store.places; print(*{m.partition('.')[0] for m in sys.modules})"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert {"rich", "click", "huggingface_hub", "llama_cpp", "numpy"}.isdisjoint(printed.split())
