"""Standard streams that are closed, full, abandoned or of another encoding: one line at most, and nothing is lost."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_model

from sgft_edge import cli

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a POSIX shell and /dev/full")

PYTHON = shlex.quote(sys.executable)
DOORS = [f"sgft_edge.{name}" for name in cli.command.list_commands(None)]  # type: ignore[arg-type]
ASKED = "sgft_edge.solve '2 + 2'"
LISTED = "sgft_edge.models list"
SAVED = [
    {
        "line": 1, "id": "1", "question": "Is it so?", "choices": {}, "reference": "yes", "correct": False,
        "wall_seconds": 1.0, "error": "no", "run": {"strategy": "direct", "given_guidance": False, "digests": {}},
    }
]  # fmt: skip


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What bash makes of `python -m COMMAND`; the status of a pipe is its first command's."""
    line = f"{PYTHON} -m {command}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, timeout=60, check=False, env={**os.environ, **environment}
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SAVED))
    return tmp_path / "rows.jsonl"


SAYING = [
    ASKED,
    f"{ASKED} --quiet",
    f"{ASKED} --json",
    LISTED,
    f"{LISTED} --json",
    "sgft_edge.models where",
    "sgft_edge.doctor",
    "sgft_edge.doctor --json",
    "sgft_edge.evaluate --from ROWS",
    "train.sgft --help",
]
HELP = [f"{door} --help" for door in (*DOORS, "convert.export_gguf", "convert.unpack")]


@pytest.mark.parametrize(
    ("command", "redirected", "reason"),
    [
        *((command, ">/dev/full", b"No space left on device") for command in (*SAYING, *HELP)),
        *((command, ">&-", b"Bad file descriptor") for command in SAYING),
    ],
)
def test_output_that_cannot_be_written_is_one_line_and_a_failure(
    command: str, redirected: str, reason: bytes, rows: Path
) -> None:
    done = shell(f"{command.replace('ROWS', str(rows))} {redirected}")
    assert done.stderr == b"sgft-edge: error: cannot write to standard output: " + reason + b"\n"
    assert done.returncode == 1


@pytest.mark.parametrize("command", ["sgft_edge.solve --help", ASKED, f"{ASKED} --json", LISTED, "sgft_edge.doctor"])
def test_a_reader_that_has_gone_ends_a_command_as_it_ends_others(command: str) -> None:
    done = shell(f"{command} | true")
    assert done.returncode in (141, 0)  # 0: it had written all before `true` ended
    assert b"error" not in done.stderr


def test_the_status_for_a_reader_that_has_gone_is_that_of_sigpipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for arguments in (["solve", "2 + 2"], ["solve", "2 + 2", "--quiet"], ["models", "list"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "sgft_edge", *arguments],
            stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (141, b"")
    os.close(writing)


def test_a_chat_whose_reader_has_gone_ends(model: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "sgft_edge.chat", "--guide", model, "--adapter", "none"],
        input=b"/help\n" * 3, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-", "2> >(exec true)"])
def test_remarks_that_cannot_be_written_stop_nothing(redirected: str, model: str, tmp_path: Path) -> None:
    done = shell(f"{ASKED} {redirected}")
    assert done.returncode == 0
    assert done.stdout.endswith(b"The answer is 4.\n")
    assert shell(f"sgft_edge.solve --nonsense {redirected}").returncode == 2
    (tmp_path / "in.jsonl").write_text('{"question": "What is 5 + 5 of them?"}\n')
    options = f"--guide {model} --adapter none --strategy direct --max-tokens 2"
    batch = f"sgft_edge.solve --input {tmp_path}/in.jsonl --output {tmp_path}/out.jsonl {options}"
    assert shell(f"{batch} {redirected}").returncode == 0
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 1


def test_a_batch_needs_no_standard_streams(model: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"question": "What is 5 + 5 of them?"}\n')
    options = f"--guide {model} --adapter none --strategy direct --max-tokens 2"
    done = shell(f"sgft_edge.solve --input {tmp_path}/in.jsonl --output {tmp_path}/out.jsonl {options} <&- >&- 2>&-")
    assert done.returncode == 0
    assert "error" not in json.loads((tmp_path / "out.jsonl").read_text())


def test_input_that_is_closed(model: str) -> None:
    told = b"cannot read standard input: Bad file descriptor\n"
    for command in ("sgft_edge.solve", "sgft_edge.solve -"):
        done = shell(f"{command} <&-")
        assert (done.returncode, done.stderr) == (1, b"sgft-edge: error: question: " + told)
    done = shell(f"sgft_edge.chat --guide {model} --adapter none <&-")
    assert (done.returncode, done.stderr) == (1, b"sgft-edge: error: " + told)
    assert shell(f"{ASKED} <&-").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_an_encoding_lacks_is_replaced(encoding: str, model: str, tmp_path: Path) -> None:
    plan = "1. Take ½ of 日本's 10 boxes.\n2. Say it."
    (tmp_path / "plan.txt").write_text(plan, encoding="utf-8")
    options = f"--guide {model} --adapter none --strategy exact --guidance-file {tmp_path}/plan.txt --max-tokens 2"
    environment = {"PYTHONIOENCODING": encoding}
    done = shell(f"sgft_edge.solve 'How many?' {options}", **environment)
    assert done.returncode == 0, done.stderr
    assert "1. Take ½ of 日本's 10 boxes.".encode(encoding, "replace") in done.stdout
    done = shell("sgft_edge.solve '２ + ２' --json", **environment)
    assert json.loads(done.stdout.decode(encoding))["question"].encode(encoding, "replace") == "２ + ２".encode(
        encoding, "replace"
    )


def test_without_a_locale_of_its_own() -> None:
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell("sgft_edge.solve '２ + ２' --json", **plain)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answer"] == "4"
    assert done.stdout.isascii()


def test_files_are_utf_8_whatever_the_terminal(model: str, rows: Path, tmp_path: Path) -> None:
    told = "日本 ½"
    environment = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    (tmp_path / "in.jsonl").write_text(json.dumps({"question": told}) + "\n" + '{"question": "a \\ud800 b"}\n')
    options = f"--guide {model} --adapter none --strategy direct --max-tokens 2"
    done = shell(f"sgft_edge.solve --input {tmp_path}/in.jsonl --output {tmp_path}/out.jsonl {options}", **environment)
    assert done.returncode == 0, done.stderr
    assert told in (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    row = {**SAVED[0], "question": f"{told} \ud800"}
    rows.write_text(json.dumps(row) + "\n")
    reports = f"--report {tmp_path}/page.html --report {tmp_path}/tables.md"
    done = shell(f"sgft_edge.evaluate --from {rows} {reports}", **environment)
    assert done.returncode == 0, done.stderr
    assert f"{told} ?" in (tmp_path / "page.html").read_text(encoding="utf-8")
    typed = f"{told}\\n/save {tmp_path}/talk.json\\ncaf\\xe9\\n/save {tmp_path}/again.json\\n"
    line = f"printf '{typed}' | {PYTHON} -m sgft_edge.chat {options}"
    talked = subprocess.run(
        ["bash", "-c", line], capture_output=True, timeout=60, check=False, env={**os.environ, **environment}
    )
    assert talked.returncode == 0, talked.stderr
    assert talked.stderr.count(b"sgft-edge: error: line 3: expected UTF-8, found byte 0xe9") == 1
    assert json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))["turns"][0][1] == told
