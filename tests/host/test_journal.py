"""Rows that are kept as they come."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest

from sgft_edge.errors import SgftError
from sgft_edge.host.journal import Journal


def written(path: Path, *numbers: int, restart: bool = False) -> None:
    with Journal(path, restart=restart) as journal:
        for number in numbers:
            journal.write({"n": number})


def test_a_restart_keeps_the_rows_until_it_has_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    written(path, 1, 2)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), Journal(path, restart=True) as journal:
        assert 1 / len(journal.rows)
    assert path.read_bytes() == before
    written(path, 3, restart=True)
    assert path.read_text() == '{"n": 3}\n'
    written(path, restart=True)
    assert path.read_text() == ""


def test_of_two_writers_the_second_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with Journal(path) as journal:
        journal.write({"n": 1})
        for restart in (False, True):
            with pytest.raises(SgftError, match=r"another process writes .*rows.jsonl now: wait") as caught:
                Journal(path, restart=restart)
            assert caught.value.exit_status == 1
        journal.write({"n": 2})
    written(path, 3)
    assert path.read_text() == '{"n": 1}\n{"n": 2}\n{"n": 3}\n'


def test_a_row_that_no_longer_fits_is_not_there_in_part(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with Journal(path) as journal:
            journal.write({"n": 1})
            resource.setrlimit(resource.RLIMIT_FSIZE, (15, limits[1]))
            with pytest.raises(SgftError, match="File too large: make room, then run it again") as caught:
                journal.write({"n": 2})
            assert caught.value.exit_status == 1
            assert path.read_text() == '{"n": 1}\n'
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    written(path, 2)
    assert path.read_text() == '{"n": 1}\n{"n": 2}\n'


def test_a_file_that_is_taken_away_is_told(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "rows.jsonl"
    path.parent.mkdir()
    with Journal(path) as journal:
        journal.write({"n": 1})
        path.unlink()
        path.parent.rmdir()
        with pytest.raises(SgftError, match="was taken away while rows were written"):
            journal.write({"n": 2})


def test_a_line_that_is_nested_too_deep_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(SgftError, match=r"line 1 of .* is not a JSON object"):
        Journal(path)
