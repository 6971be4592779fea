"""What a training learns from: several files, some in part, without the rows that are held out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sgft_edge.errors import InputError
from train.check_sg import read_sg
from train.mix import read_ids, read_mix
from train.settings import TrainSettings, read_settings

DATA = Path(__file__).parents[2] / "train" / "data"
CONFIGS = sorted((DATA.parent / "configs").glob("*.toml"))


def write(path: Path, ids: list[str]) -> str:
    rows = [{"id": id_, "question": f"What is {id_}?", "guidance": "1. Say it.", "answer": "1"} for id_ in ids]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def settings(*data: str, **others: object) -> TrainSettings:
    return TrainSettings(base="", out="", data=data, **others)  # type: ignore[arg-type]


def test_files_are_joined_some_in_part_without_what_is_held_out(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.jsonl", ["a1", "a2", "a3"]), write(tmp_path / "b.jsonl", ["b1", "b2", "b3"])
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("# not these\n\na1\nb2\nelsewhere\n")
    mix = read_mix(settings(f"{first}:1", second, held_out=str(held_out)))
    assert [row.id for row in mix.rows] == ["a2", "b1", "b3"]
    assert [(part.file, part.rows) for part in mix.parts] == [("a.jsonl", 1), ("b.jsonl", 2)]


def test_a_limit_takes_of_all_files_alike(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.jsonl", [f"{name}{n}" for n in range(50)]) for name in "abc"]
    mix = read_mix(settings(*files, rows=30))
    taken = [row.id for row in mix.rows]
    assert len(set(taken)) == 30
    assert {id_[0] for id_ in taken} == set("abc")
    assert [part.rows for part in mix.parts] == [sum(id_.startswith(name) for id_ in taken) for name in "abc"]
    assert taken == [row.id for row in read_mix(settings(*files, rows=30)).rows]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    data = write(tmp_path / "a.jsonl", ["a1"])
    other = tmp_path / "ids.txt"
    other.write_text("b1\n")
    for given, message in (
        (settings(f"{data}:0"), "expected at least 1 row"),
        (settings(data, held_out=str(tmp_path / "none.txt")), "held_out: cannot read"),
        (settings(data, held_out=str(other)), "found none of them"),
    ):
        with pytest.raises(InputError, match=message):
            read_mix(given)


def test_a_config_names_one_file_or_several(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    for written, expected in (('"a"', ("a",)), ('["a", "b:3"]', ("a", "b:3"))):
        config.write_text(f'base = "x"\nout = "y"\ndata = {written}\n')
        assert read_settings(config, {}).data == expected
        assert read_settings(config, {"data": ("c",)}).data == ("c",)
    for wrong in ("3", "[]", "[3]"):
        config.write_text(f'base = "x"\nout = "y"\ndata = {wrong}\n')
        with pytest.raises(InputError, match="data: expected a file, or a list of files"):
            read_settings(config, {})


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_what_is_held_out_is_in_no_mix_that_ships(config: Path) -> None:
    given = read_settings(config, {})
    assert given.held_out
    held_out = read_ids(DATA / "held-out.txt")
    mix = read_mix(given)
    assert not held_out & {row.id for row in mix.rows}
    assert not {row.id for row in read_sg(DATA / "solution_guidance.dev.jsonl")} & {row.id for row in mix.rows}


def test_enough_is_held_out_for_a_judge() -> None:
    held_out = read_ids(DATA / "held-out.txt")
    counts = {
        name: sum(row.id in held_out for row in read_sg(DATA / f"{name}.train.jsonl"))
        for name in ("gsm8k", "elementary", "everyday")
    }
    assert counts == {"gsm8k": 1500, "elementary": 179, "everyday": 120}
    assert sum(counts.values()) == len(held_out)
