"""Batches: many questions into a file, whatever happens on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import tiny_model

from sgft_edge import solve

OPTIONS = ["--strategy", "direct", "--max-tokens", "4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf"))


def problems(path: Path, count: int) -> Path:
    path.write_text(
        "".join(json.dumps({"id": f"p{i}", "question": f"What is {i} + {i}?"}) + "\n" for i in range(count))
    )
    return path


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_row_gets_its_solution_and_a_bad_row_its_error(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(
        b'{"id": "a", "question": "What is 1 + 1?"}\n'
        b"not json\n"
        b"\n"
        b'{"id": "b", "question": ""}\n'
        b'{"id": "c", "question": "caf\xe9"}\n'
        b'{"id": "d", "question": "Yes or no?", "choices": {"A": "yes", "B": "no"}}\n'
        b'{"id": "e", "question": "' + b"long " * 3000 + b'"}\n'
        b'{"question": "What is 2 + 2?", "choices": 5}\n'
    )
    assert solve.main(["--input", str(source), "--output", str(target), "--guide", model, *OPTIONS]) == 0
    got = {row["line"]: row for row in rows(target)}
    assert sorted(got) == [1, 2, 4, 5, 6, 7, 8]
    assert {line for line in got if "error" in got[line]} == {
        2,
        4,
        5,
        7,
        8,
    }
    assert got[1]["id"] == "a"
    assert got[1]["strategy"] == "direct"
    assert got[6]["answer"] in ("A", "B")
    assert "context window" in got[7]["error"]


def test_a_finished_batch_has_nothing_left_to_do(model: str, tmp_path: Path) -> None:
    source, target = problems(tmp_path / "in.jsonl", 3), tmp_path / "out.jsonl"
    arguments = ["--input", str(source), "--output", str(target), "--guide", model, *OPTIONS]
    assert solve.main(arguments) == 0
    before = target.read_bytes()
    assert solve.main(arguments) == 0
    assert target.read_bytes() == before
    assert solve.main([*arguments, "--restart"]) == 0
    assert len(rows(target)) == 3


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_resumes_after_it_was_stopped_anywhere(model: str, tmp_path: Path, sent: signal.Signals, status: int) -> None:
    source, target = problems(tmp_path / "in.jsonl", 60), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "sgft_edge.solve", "--input", str(source), "--output", str(target)]
    command += ["--guide", model, "--strategy", "cot", "--max-tokens", "60"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while (not target.exists() or target.read_bytes().count(b"\n") < 5) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(sent)
    assert process.wait(timeout=20) == status
    done = target.read_bytes()
    assert 5 <= done.count(b"\n") < 60
    with target.open("ab") as file:
        file.write(b'{"line": 60, "question": "cut off in the mid')  # as a crash of the machine leaves it
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0
    assert target.read_bytes().startswith(done[: done.rfind(b"\n") + 1])
    assert sorted(row["line"] for row in rows(target)) == list(range(1, 61))


def test_output_of_another_input_is_kept_and_refused(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = problems(tmp_path / "in.jsonl", 2), tmp_path / "out.jsonl"
    arguments = ["--input", str(source), "--output", str(target), "--guide", model, *OPTIONS]
    for text, complaint in (
        ('{"line": 1, "question": "another"}\n', "rows of another input"),
        ("a shopping list\n", "not a JSON object"),
    ):
        target.write_text(text)
        assert solve.main(arguments) == 2
        assert complaint in capsys.readouterr().err
        assert target.read_text() == text


def test_places_that_cannot_be_read_or_written(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = problems(tmp_path / "in.jsonl", 2)
    for source_path, target_path, complaint in (
        (source, tmp_path / "no" / "out.jsonl", "cannot write"),
        (source, tmp_path, "cannot write"),
        (tmp_path / "missing.jsonl", tmp_path / "out.jsonl", "cannot read"),
        (source, source, "another file than the input"),
    ):
        before = source.read_bytes()
        assert solve.main(["--input", str(source_path), "--output", str(target_path), "--guide", model]) == 2
        assert complaint in capsys.readouterr().err
        assert source.read_bytes() == before
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = problems(tmp_path / "in.jsonl", 2)
    assert solve.main(["--input", str(source), "--output", "/dev/full", "--guide", model, *OPTIONS]) == 1
    assert "No space left" in capsys.readouterr().err
