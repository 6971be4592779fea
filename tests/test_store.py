"""The manifest, the look-ups, the digests and the user's own entries; no network, no folder of the real user."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from sgft_edge import store
from sgft_edge.errors import ModelError, ModelMissing
from sgft_edge.models import command
from sgft_edge.store import Entry, Manifest

GGUF = b"GGUF\x03\x00\x00\x00 a model, as far as this file knows"
MINIMAL = {"title": "Tiny", "role": "model", "file": "tiny.gguf", "licence": "MIT"}
HOSTILE = ['"', "\\", "a\nb\r\tc", "]\n[models.evil]", "\x00\x1f\x7f\x80", "é \u2028 🦙 ''' \"\"\"", "# no comment", ""]


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for kind in ("models", "config", "cache"):
        monkeypatch.setenv(f"SGFT_EDGE_{kind.upper()}", str(tmp_path / kind))
    return tmp_path


@pytest.fixture
def gguf(tmp_path):
    path = tmp_path / "elsewhere" / "My Model.gguf"
    path.parent.mkdir()
    path.write_bytes(GGUF)
    return path


def write_user_manifest(text: str) -> None:
    store.config_folder().mkdir(exist_ok=True)
    (store.config_folder() / "models.toml").write_text(text, encoding="utf-8")


def download(entry: Entry, content: bytes = GGUF) -> Path:
    store.models_folder().mkdir(exist_ok=True)
    path = store.models_folder() / entry.file
    path.write_bytes(content)
    return path


def test_packaged_manifest_loads():
    entries = Manifest.load().entries
    assert next(iter(entries)) == "smollm2"
    assert entries["smollm2"].bytes == 98362432
    assert all(entry.sources and entry.context and entry.memory_mb and entry.description for entry in entries.values())
    assert all((entry.bytes is None) == (entry.sha256 is None) for entry in entries.values())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"file": "../tiny.gguf"}, "file must be"),
        ({"file": "a\\b.gguf"}, "file must be"),
        ({"file": "C:tiny.gguf"}, "file must be"),
        ({"file": ".hidden.gguf"}, "file must be"),
        ({"file": "tiny.bin"}, "file must be"),
        ({"file": "tiny.gguf\n"}, "file must be"),
        ({"role": "guide"}, "role must be"),
        ({"role": "adapter"}, "base must be"),
        ({"auto": "best"}, "auto must be"),
        ({"sha256": "ABC"}, "sha256 must be"),
        ({"bytes": 0}, "bytes must be"),
        ({"bytes": True}, "bytes must be int"),
        ({"context": "2048"}, "context must be int"),
        ({"sources": "hf:a/b/c"}, "sources must be list"),
        ({"sources": [1]}, "sources must be strings"),
        ({"sources": ["hf:owner/file.gguf"]}, "one of hf:OWNER/REPO/FILE"),
        ({"sources": ["pypi:--index-url==x/a.gguf"]}, "one of hf:OWNER/REPO/FILE"),
        ({"sources": ["file:tiny.gguf"]}, "one of hf:OWNER/REPO/FILE"),
        ({"sources": ["ftp:tiny.gguf"]}, "one of hf:OWNER/REPO/FILE"),
        ({"license": "MIT"}, r"unknown key 'license' \(did you mean licence\?\)"),
    ],
)
def test_entry_refuses(change, complaint):
    with pytest.raises(ModelError, match=complaint):
        Entry.from_table("tiny", MINIMAL | change)


@pytest.mark.parametrize("name", ["Tiny", "../tiny", "a/b", "", "-x", "a b", "tiny.gguf", "tiny\n"])
def test_entry_refuses_names_that_are_no_file_names(name):
    with pytest.raises(ModelError, match="name must be"):
        Entry.from_table(name, MINIMAL)


def test_entry_says_what_is_missing():
    with pytest.raises(ModelError, match="missing role, file, licence"):
        Entry.from_table("tiny", {"title": "Tiny"})


def test_users_entry_wins_by_name():
    write_user_manifest('[models.smollm2]\ntitle = "Mine"\nrole = "model"\nfile = "mine.gguf"\nlicence = "MIT"\n')
    entry = Manifest.load().get("smollm2")
    assert (entry.title, entry.own, entry.sha256) == ("Mine", True, None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[models.tiny]\ntitle = "a\n', r"models\.toml is not TOML: .*line 2"),
        ("[models.tiny]\ntitle = 1\n", r"models\.toml: model 'tiny': title must be str, found 1"),
        ("[models]\ntiny = 1\n", r"models\.toml: model 'tiny': expected a table"),
        ("[model.tiny]\n", r"models\.toml: expected only \[models\.NAME\] tables, found model"),
        ("models = 1\n", r"models\.toml: expected only"),
        (
            '[models.tiny]\ntitle = "t"\nrole = "model"\nfile = "SMOLLM2-135M-instruct.q4_1.gguf"\nlicence = "MIT"\n',
            "models 'smollm2' and 'tiny' would share the file",
        ),
    ],
)
def test_damaged_manifest_is_named(text, complaint):
    write_user_manifest(text)
    with pytest.raises(ModelError, match=complaint):
        Manifest.load()


def test_manifest_that_is_not_text_is_named():
    store.config_folder().mkdir()
    (store.config_folder() / "models.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"models\.toml is not TOML"):
        Manifest.load()


def test_unknown_name_gets_suggestions():
    with pytest.raises(ModelError, match=r"unknown model 'smolm2' \(did you mean smollm2"):
        store.resolve("smolm2")


def test_resolve_names():
    write_user_manifest('[models.tiny]\ntitle = "t"\nrole = "model"\nfile = "tiny.gguf"\nlicence = "MIT"\n')
    with pytest.raises(ModelMissing, match="tiny is not on this machine: run `sgft-edge models pull tiny`"):
        store.resolve("tiny")
    path = download(Manifest.load().get("tiny"))
    assert store.resolve("tiny") == path == store.models_folder() / "tiny.gguf"


def test_resolve_refuses_a_file_of_the_wrong_size():
    path = download(Manifest.load().get("smollm2"))
    with pytest.raises(ModelError, match=rf"has {path.stat().st_size} bytes, smollm2 has 98362432: run"):
        store.resolve("smollm2")


def test_resolve_paths(gguf, monkeypatch):
    monkeypatch.chdir(gguf.parent)
    for path in (gguf, str(gguf), gguf.name, f".{os.sep}{gguf.name}", Path(gguf.name)):
        assert store.resolve(path).samefile(gguf)
    for path in ("absent.gguf", "models/smollm2", Path("smollm2"), str(gguf.parent) + os.sep):
        with pytest.raises(ModelError, match="no model file at"):
            store.resolve(path)


def test_entry_for(gguf):
    assert store.entry_for("smollm2") == Manifest.load().get("smollm2")
    assert store.entry_for("absent") is None
    assert store.entry_for(gguf) is None
    entry = store.add("mine", gguf)
    twin = gguf.with_name("twin.gguf")
    shutil.copyfile(gguf, twin)
    assert store.entry_for("mine") == store.entry_for(gguf) == store.entry_for(twin) == entry
    twin.write_bytes(GGUF.swapcase())  # the same size
    assert store.entry_for(twin) is None


def test_file_digest_is_remembered_until_the_file_changes(gguf):
    digest = store.file_digest(gguf)
    status = gguf.stat()
    gguf.write_bytes(GGUF.swapcase())
    os.utime(gguf, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.file_digest(gguf) == digest  # believed: the same size and time
    assert store.file_digest(gguf, fresh=True) != digest
    gguf.write_bytes(GGUF)
    os.utime(gguf, ns=(0, 0))
    assert store.file_digest(gguf) == digest


@pytest.mark.parametrize("damage", ["{", "[]", '{"PATH": 1}', '{"PATH": [1]}', '{"PATH": [SIZE, TIME]}', "\x00"])
def test_file_digest_survives_a_damaged_cache(gguf, damage):
    status, key = gguf.stat(), json.dumps(str(gguf.resolve()))
    damage = damage.replace('"PATH"', key).replace("SIZE", str(status.st_size)).replace("TIME", str(status.st_mtime_ns))
    digest = store.file_digest(gguf)
    (store.cache_folder() / "digests.json").write_text(damage)
    assert store.file_digest(gguf) == digest
    assert json.loads((store.cache_folder() / "digests.json").read_text())[str(gguf.resolve())][2] == digest


def test_file_digest_does_without_a_cache(gguf, monkeypatch):
    monkeypatch.setenv("SGFT_EDGE_CACHE", str(gguf / "no folder can be in a file"))
    assert store.file_digest(gguf) == store.file_digest(gguf)


def test_toml_round_trip_of_hostile_strings():
    tables = {text: {"title": text, "sources": [text, text], "bytes": 7} for text in HOSTILE}
    assert tomllib.loads(store.toml_text(tables)) == {"models": tables}


def test_entry_round_trip():
    for entry in Manifest.load().entries.values():
        text = store.toml_text({entry.name: entry.to_table()})
        assert Entry.from_table(entry.name, tomllib.loads(text)["models"][entry.name]) == entry


def test_add_and_remove(gguf):
    first = store.add("mine", gguf)
    store.add("style", gguf, role="adapter", base="mine", licence="MIT")
    assert Manifest.load().get("mine") == first
    assert store.resolve("mine") == gguf
    assert store.trusted_digest(first) == store.file_digest(gguf)
    assert not store.models_folder().exists()
    with pytest.raises(ModelError, match=r"'mine' exists: .* --force"):
        store.add("mine", gguf)
    store.remove("mine")
    assert "mine" not in Manifest.load().entries
    assert Manifest.load().get("style").base == "mine"
    with pytest.raises(ModelError, match="has no model 'mine'"):
        store.remove("mine")


def test_add_replaces_a_packaged_name_and_remove_restores_it(gguf):
    packaged = Manifest.load().get("smollm2")
    store.add("smollm2", gguf, force=True)
    assert store.resolve("smollm2") == gguf
    store.remove("smollm2")
    assert Manifest.load().get("smollm2") == packaged


def test_add_refuses(gguf):
    with pytest.raises(ModelError, match="unknown model 'smollm'"):
        store.add("style", gguf, role="adapter", base="smollm")
    with pytest.raises(ModelError, match="cannot read"):
        store.add("mine", gguf.with_name("absent.gguf"))
    gguf.write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match="not a GGUF file"):
        store.add("mine", gguf)
    assert not store.config_folder().exists()


def test_add_says_that_it_cannot_write(gguf, monkeypatch):
    nowhere = gguf.with_name("nowhere")
    nowhere.symlink_to(gguf.with_name("absent") / "absent")  # refuses root, too
    monkeypatch.setenv("SGFT_EDGE_CONFIG", str(nowhere))
    with pytest.raises(ModelError, match=r"cannot write .*models\.toml"):
        store.add("mine", gguf)


def test_load_says_that_it_cannot_read(gguf, monkeypatch):
    monkeypatch.setenv("SGFT_EDGE_CONFIG", str(gguf))
    with pytest.raises(ModelError, match=r"cannot read .*models\.toml: Not a directory"):
        Manifest.load()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such file names")
def test_add_refuses_a_path_that_toml_cannot_hold(gguf):
    odd = gguf.rename(os.fsdecode(os.fsencode(gguf.parent) + b"/\xff.gguf"))
    with pytest.raises(ModelError, match="not valid Unicode"):
        store.add("mine", odd)


def test_package_models_in_a_wheel(tmp_path):
    """In a wheel the manifest lies in sgft_edge/models/, beside the module sgft_edge/models.py, which must win."""
    shutil.copytree(Path(store.__file__).parent, tmp_path / "site" / "sgft_edge", dirs_exist_ok=True)
    shutil.copytree(store.package_models(), tmp_path / "site" / "sgft_edge" / "models", dirs_exist_ok=True)
    code = "import sgft_edge.models as m, sgft_edge.store as s; m.main; print(s.package_models())"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    printed = subprocess.check_output([sys.executable, "-c", code], env=env, cwd=tmp_path, text=True)
    assert Path(printed.strip()) == tmp_path / "site" / "sgft_edge" / "models"


def test_import_is_light():
    code = "import sys, sgft_edge.store; print(*{m.partition('.')[0] for m in sys.modules})"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert {"rich", "click", "huggingface_hub", "llama_cpp", "numpy"}.isdisjoint(printed.split())


def test_command_list():
    result = CliRunner().invoke(command, ["list", "--json"])
    rows = {row["name"]: row for row in json.loads(result.output)}
    assert rows["smollm2"]["path"] is None
    assert rows["smollm2"]["bytes"] == 98362432
    assert "qwen2.5-coder-0.5b" in CliRunner().invoke(command, ["list"]).output


def test_command_add_where_rm(gguf):
    def run(*args: str, answer: str = "") -> str:
        result = CliRunner().invoke(command, args, input=answer, catch_exceptions=False)
        return result.output

    assert run("add", "mine", str(gguf), "--licence", "MIT") == f"mine: {gguf}\n"
    assert run("where", "mine") == f"{gguf}\n"
    assert str(store.config_folder()) in run("where")
    assert json.loads(run("list", "--json"))[-1]["verified"] == "yes"
    copy = download(Manifest.load().get("mine"))
    assert "Aborted" in run("rm", "mine", answer="n\n")
    assert copy.exists()
    assert run("rm", "mine", "--yes") == f"deleted {copy}\nmine is no longer in models.toml\n"
    assert gguf.exists()
    assert not copy.exists()
    with pytest.raises(ModelMissing, match="nothing to delete"):
        run("rm", "smollm2")
