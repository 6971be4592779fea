"""Models that are split over several files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from functools import partial
from pathlib import Path

import gguf
import pytest
import tiny
from click.testing import CliRunner
from solvers import BIKES, FREE, open_tiny

from sgft_edge import models
from sgft_edge.bundle import _carried, _write
from sgft_edge.errors import ModelError, PullError
from sgft_edge.host.files import models_folder
from sgft_edge.installation.diagnosis import examine
from sgft_edge.solving.default import choose_default
from sgft_edge.solving.sizes import Sizes
from sgft_edge.store import places
from sgft_edge.store.digests import file_digest
from sgft_edge.store.manifest import Entry, Manifest
from sgft_edge.store.pull import pull
from sgft_edge.store.splits import parts, size_of


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first part of three."""
    with monkeypatch.context() as patch:
        patch.setattr(tiny, "GGUFWriter", partial(gguf.GGUFWriter, split_max_tensors=8))
        tiny.tiny_model(tmp_path / "big.gguf")
    return tmp_path / "big-00001-of-00003.gguf"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_split_model_answers_as_the_whole_one(split: Path, llama: Path) -> None:
    with open_tiny(split) as one, open_tiny(llama) as other:
        assert one.solve(BIKES, FREE).text == other.solve(BIKES, FREE).text
        assert one.cast.need.weights >= size_of(split)


def test_all_parts_count(split: Path, llama: Path) -> None:
    files = parts(split)
    assert [file.name for file in files] == [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert size_of(split) == sum(file.stat().st_size for file in files) > llama.stat().st_size
    lines = "".join(f"{sha256(file)}\n" for file in files)
    assert file_digest(split) == hashlib.sha256(lines.encode()).hexdigest()
    assert Sizes.read(split).repacked == Sizes.read(llama).repacked
    assert Sizes.read(split).file == size_of(split)


def test_a_change_in_any_part_changes_the_digest(split: Path) -> None:
    before = file_digest(split)
    last = parts(split)[-1]
    data = bytearray(last.read_bytes())
    data[-1] ^= 1
    last.write_bytes(data)
    os.utime(last, ns=(1, 1))
    assert file_digest(split) != before


def test_a_missing_part_is_named(split: Path) -> None:
    second = parts(split)[1]
    second.unlink()
    expected = f"{split}: expected 3 parts beside one another, {second.name} is missing: put it there"
    for action in (open_tiny, file_digest, partial(places.add, "big")):
        with pytest.raises(ModelError) as refused:
            action(split)
        assert str(refused.value) == expected


def test_another_part_than_the_first_is_refused(split: Path) -> None:
    for part in parts(split)[1:]:
        with pytest.raises(ModelError, match=rf"expected the first part .+ give {split.name}"):
            open_tiny(part)


def test_a_name_that_contradicts_the_file_is_refused(split: Path) -> None:
    other = split.rename(split.with_name("big-00001-of-00002.gguf"))
    with pytest.raises(ModelError, match=r"expected 2 parts by its name, it announces 3"):
        open_tiny(other)


def test_a_whole_model_may_be_called_like_a_part(llama: Path, tmp_path: Path) -> None:
    named = tmp_path / "model-00001-of-00003.gguf"
    shutil.copyfile(llama, named)
    open_tiny(named).close()
    assert file_digest(named) == file_digest(llama)


def linked(split: Path, folder: Path) -> Path:
    """The parts as a cache has them: links by the right names to files with others."""
    blobs = folder / "blobs"
    blobs.mkdir(parents=True)
    for part in parts(split):
        part.rename(blobs / part.name[:9].replace("-", "x"))
        (folder / part.name).symlink_to(blobs / part.name[:9].replace("-", "x"))
    return folder / split.name


@pytest.mark.usefixtures("trial")
def test_models_add_keeps_the_names_of_links_into_a_cache(split: Path, tmp_path: Path) -> None:
    first = linked(split, tmp_path / "cache of another")
    run = CliRunner().invoke(models.command, ["add", "big", str(first)], catch_exceptions=False)
    assert run.output == f"big: {first}\n"
    entry = Manifest.load().get("big")
    assert (entry.bytes, entry.sha256) == (size_of(first), file_digest(first))
    open_tiny("big").close()  # type: ignore[arg-type]
    shown = json.loads(CliRunner().invoke(models.command, ["list", "--json"]).output)[-1]
    assert (shown["bytes"], shown["verified"]) == (size_of(first), "yes")
    parts(first)[2].unlink()
    shown = json.loads(CliRunner().invoke(models.command, ["list", "--json"]).output)[-1]
    assert shown["verified"] == "unreadable"
    run = CliRunner().invoke(models.command, ["verify", "big"])
    assert "big-00003-of-00003.gguf is missing" in run.output
    assert isinstance(run.exception, ModelError)


@pytest.mark.usefixtures("trial")
def test_a_trial_names_the_missing_part(split: Path) -> None:
    parts(split)[1].unlink()
    with pytest.raises(ModelError, match=r"big-00002-of-00003.gguf is missing"):
        open_tiny(split)


def test_a_bundle_carries_all_parts(split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    carried = _carried(str(split))
    _write(folder, [carried], [])
    names = [f"big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert sorted(path.name for path in (folder / "models").iterdir()) == names
    monkeypatch.setenv("SGFT_EDGE_MODELS", str(folder / "models"))
    monkeypatch.setenv("SGFT_EDGE_CONFIG", str(folder / "config"))
    assert places.state(Manifest.load().get("big")).verified == "yes"
    open_tiny("big").close()  # type: ignore[arg-type]


def test_a_pull_of_one_part_is_refused(split: Path) -> None:
    entry = Entry(
        name="big", title="", role="model", file="big.gguf", licence="MIT", sources=(f"file:{split}",), own=True
    )
    with pytest.raises(PullError, match=r"found part 1 of 3: fetch all parts into one folder, then `sgft-edge models"):
        pull(entry)
    assert not (models_folder() / "big.gguf").exists()


def test_doctor_and_the_default_live_with_a_missing_part(split: Path) -> None:
    places.add("big", split)
    parts(split)[1].unlink()
    assert "big-00002-of-00003.gguf is missing" in (examine().tunings or {})["big"]
    assert choose_default().name == "big"
