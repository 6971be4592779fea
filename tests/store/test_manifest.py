"""What can stand in the manifests, and what is said where it cannot."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sgft_edge.store.manifest
from sgft_edge.errors import ModelError
from sgft_edge.host.files import config_folder, toml_tables
from sgft_edge.solving.adapters import PROMPTS_KEY, AdapterFile
from sgft_edge.store.digests import file_digest
from sgft_edge.store.header import peek
from sgft_edge.store.manifest import Entry, Manifest, package_models, put, remove, requirements

MINIMAL = {"title": "Tiny", "role": "model", "file": "tiny.gguf", "licence": "MIT"}
HOSTILE = ['"', "\\", "a\nb\r\tc", "]\n[models.evil]", "\x00\x1f\x7f\x80", "é \u2028 🦙 ''' \"\"\"", "# no comment", ""]


def write_user_manifest(text: str) -> None:
    config_folder().mkdir(exist_ok=True)
    (config_folder() / "models.toml").write_text(text, encoding="utf-8")


def test_packaged_manifest_loads():
    entries = Manifest.load().entries
    assert next(iter(entries)) == "smollm2"
    assert entries["smollm2"].bytes == 98362432
    assert all(entry.title and entry.description for entry in entries.values())
    models = [entry for entry in entries.values() if entry.role == "model"]
    assert all(entry.sources and entry.context and entry.memory_mb for entry in models)
    assert all((entry.bytes is None) == (entry.sha256 is None) for entry in entries.values())


def test_packaged_adapters_lie_in_the_package():
    """Each is the file that the manifest describes, trained with the prompts of now."""
    adapters = [entry for entry in Manifest.load().entries.values() if entry.role == "adapter"]
    assert adapters
    for entry in adapters:
        path = package_models() / entry.file
        assert (path.stat().st_size, file_digest(path, fresh=True)) == (entry.bytes, entry.sha256)
        assert entry.base in Manifest.load().entries
        found = AdapterFile.read(path)
        assert found.trained_for
        assert entry.prompts_digest == found.prompts_digest == peek(path, PROMPTS_KEY)


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
        ({"sources": ["pypi:part{6..1}==1/*.bin"]}, r"DIST\{FIRST..LAST\}==VERSION/PATH"),
        ({"sources": ["pypi:part{1..99999}==1/*.bin"]}, r"DIST\{FIRST..LAST\}==VERSION/PATH"),
        ({"sources": ["pypi:part{1..}==1/*.bin"]}, r"DIST\{FIRST..LAST\}==VERSION/PATH"),
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


def test_requirements_of_a_source():
    assert requirements("tiny==1.0/a/b.gguf") == ["tiny==1.0"]
    assert requirements("tiny-{9..11}-x==1.0/*.bin") == ["tiny-9-x==1.0", "tiny-10-x==1.0", "tiny-11-x==1.0"]


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
    config_folder().mkdir()
    (config_folder() / "models.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"models\.toml is not TOML"):
        Manifest.load()


def test_load_says_that_it_cannot_read(gguf, monkeypatch):
    monkeypatch.setenv("SGFT_EDGE_CONFIG", str(gguf))
    with pytest.raises(ModelError, match=r"cannot read .*models\.toml: Not a directory"):
        Manifest.load()


def test_put_and_remove():
    mine = Entry.from_table("mine", MINIMAL, own=True)
    put(mine)
    put(Entry.from_table("other", MINIMAL | {"file": "other.gguf"}, own=True))
    assert Manifest.load().get("mine") == mine
    with pytest.raises(ModelError, match="models 'mine' and 'third' would share the file"):
        put(Entry.from_table("third", MINIMAL, own=True))
    remove("mine")
    assert [entry.name for entry in Manifest.load().entries.values() if entry.own] == ["other"]
    with pytest.raises(ModelError, match=r"models\.toml has no model 'mine'"):
        remove("mine")


def test_toml_round_trip_of_hostile_strings():
    tables = {text: {"title": text, "sources": [text, text], "bytes": 7} for text in HOSTILE}
    assert tomllib.loads(toml_tables("models", tables)) == {"models": tables}


def test_entry_round_trip():
    for entry in Manifest.load().entries.values():
        text = toml_tables("models", {entry.name: entry.to_table()})
        assert Entry.from_table(entry.name, tomllib.loads(text)["models"][entry.name]) == entry


def test_package_models_in_a_wheel(tmp_path):
    """The wheel puts models/ into the package as shipped/, as pyproject.toml says."""
    checkout = Path(sgft_edge.store.manifest.__file__).parents[2]
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    for source, target in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].items():
        shutil.copytree(checkout / source, tmp_path / target)
    shutil.copytree(checkout / "sgft_edge", tmp_path / "sgft_edge", dirs_exist_ok=True)
    code = "from sgft_edge.store.manifest import package_models; print(package_models())"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    printed = subprocess.check_output([sys.executable, "-c", code], env=env, cwd=tmp_path, text=True)
    assert Path(printed.strip()) == tmp_path / "sgft_edge" / "shipped"
