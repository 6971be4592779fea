"""Names and numbers as people type them: one line and a status, a conversation that goes on, devices that stay."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_model

from sgft_edge.errors import InputError
from sgft_edge.host.files import place, read_bounded, write_atomically
from train.settings import TrainSettings

LONG = "x" * 5000
NAMES = ["~nosuchuser/x", "", LONG, "FOLDER"]
ROWS = '{"line":1,"id":"1","question":"?","choices":{},"reference":"yes","correct":false,"wall_seconds":1.0,' + (
    '"error":"no","run":{"strategy":"direct","given_guidance":false,"digests":{}}}'
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "line",
    [
        "solve --file NAME",
        "solve Why? --guidance-file NAME",
        "solve --input NAME --output out.jsonl",
        "solve --input in.jsonl --output NAME",
        "solve Why? --guide NAME",
        "solve Why? --guide MODEL --answerer NAME",
        "solve Why? --guide MODEL --adapter NAME",
        "solve Why? --guide MODEL --answerer-adapter NAME",
        "chat --guide MODEL --adapter none --load NAME",
        "serve --guide MODEL --api-key-file NAME",
        "models where NAME",
        "models use NAME",
        "models add mine NAME",
        "evaluate NAME --guide MODEL",
        "evaluate --from NAME",
        "evaluate in.jsonl --guide MODEL --output NAME",
        "evaluate in.jsonl --guide MODEL --guidance NAME",
        "evaluate --from rows.jsonl --report NAME.md",
        "bundle --models MODEL --out NAME",
        "bundle --out out --models NAME.gguf",
        "bench --model NAME.gguf",
    ],
)
def test_names_that_cannot_be_used(
    line: str,
    name: str,
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"question": "Why 5 of them?", "answer": "5"}\n')
    (tmp_path / "rows.jsonl").write_text(ROWS + "\n")
    for folder in ("folder", "folder.md", "folder.gguf"):
        (tmp_path / folder / "taken").mkdir(parents=True)
    given = name.replace("FOLDER", str(tmp_path / "folder"))
    door, *arguments = (word.replace("NAME", given).replace("MODEL", model) for word in line.split())
    assert importlib.import_module(f"sgft_edge.{door}").main(arguments) in (1, 2) or (given == "" and "." in line)
    err = capsys.readouterr().err
    assert err.count("\n") <= 1
    assert not err or err.startswith("sgft-edge: error: ")


def chat(model: str, typed: bytes, folder: Path) -> tuple[bytes, bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "sgft_edge.chat", "--guide", model, "--adapter", "none", "--max-tokens", "2"],
        input=typed, capture_output=True, timeout=60, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_no_name_ends_a_conversation(model: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[" * 100_000)
    wrong = [
        *(f"/{command} {name}" for command in ("save", "load") for name in (".", "~nosuchuser/x", "/", "a\0b", LONG)),
        *("/save", "/load", "/load other.json", "/load /dev/zero", "/save /dev/full", "/save other.json/x"),
        *("/model ~nosuchuser/x.gguf", "/model a\0b.gguf", f"/model {LONG}.gguf", "/model .", "/system", "/strategy"),
    ]
    lines = ["Hello", *wrong, "/save talk.json"]
    _, err = chat(model, "\n".join(lines).encode(), tmp_path)
    told = [line for line in err.decode().splitlines() if line.startswith("sgft-edge: error: ")]
    assert len(told) == len(wrong) - 1  # /system without a text is right
    assert json.loads((tmp_path / "talk.json").read_text())["turns"][0] == ["user", "Hello"]


def test_what_is_written_leaves_devices_and_links(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real.txt", tmp_path / "link.txt", tmp_path / "pipe"
    real.write_text("old")
    link.symlink_to(real)
    write_atomically(link, "new \ud800", errors="replace")
    assert link.is_symlink()
    assert real.read_text() == "new ?"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, "through")
    assert os.read(reading, 100) == b"through"
    os.close(reading)
    assert pipe.is_fifo()
    for folder in (Path("."), Path("/"), tmp_path):
        with pytest.raises(IsADirectoryError):
            write_atomically(folder, "")


def test_places() -> None:
    assert place("~/x") == Path.home() / "x"
    assert place("a b") == Path("a b")
    for name in ("", " ", "a\0b", "~nosuchuser", "~nosuchuser/x"):
        with pytest.raises(InputError, match="expected a file's name"):
            place(name)
    with pytest.raises(InputError, match="at most 64 MiB"):
        read_bounded(Path("/dev/zero"))


HUGE = "9" * 30


@pytest.mark.parametrize(
    "options",
    [
        *([option, HUGE] for option in ("--context", "--threads", "--votes", "--temperature", "--seed")),
        *([option, value] for option in ("--temperature", "--top-p", "--min-p") for value in ("nan", "1e400", "-1")),
        *([option, "9" * 5000] for option in ("--context", "--threads", "--max-tokens", "--votes", "--seed")),
        *([option, ""] for option in ("--context", "--threads", "--max-memory", "--temperature")),
        ["--threads", "513"],
        ["--votes", "300", "--parallel", HUGE],
        ["--max-memory", "nan"],
    ],
    ids=lambda options: " ".join(word[:12] for word in options),
)
def test_numbers_out_of_bounds(options: list[str], model: str, capsys: pytest.CaptureFixture[str]) -> None:
    from sgft_edge import solve

    assert solve.main(["Why?", "--guide", model, "--adapter", "none", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("sgft-edge: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        *(["--port", value] for value in ("99999", "-1", HUGE, "nan", "")),
        *(["--timeout", value] for value in ("nan", "inf", "0", "-1", "1e400", "")),
        *(["--queue", value] for value in ("-1", "nan")),
        *([option, "0"] for option in ("--parallel", "--max-tokens", "--max-body")),
        *(["--host", value] for value in ("", " ", "a b", "999.1.1.1", "[::1]", "localhost:80", LONG, "a\nb")),
        *([option, value] for option in ("--allow-host", "--cors") for value in ("", "a b", "\x1b[2J", LONG, "*")),
    ],
    ids=lambda options: " ".join(repr(word[:12]) for word in options),
)
def test_what_serve_refuses(options: list[str], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sgft_edge import serve

    (tmp_path / "key").write_text("key")
    options = ["--host", "192.0.2.1", *options, "--api-key-file", str(tmp_path / "key")]  # an address of nobody
    assert serve.main(["--guide", model, "--adapter", "none", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("sgft-edge: error: ")
    assert err.count("\n") == 1
    assert "192.0.2.1" not in err
    assert "\x1b" not in err


@pytest.mark.parametrize("name", ["rate", "warmup", "weight_decay", "dropout", "epochs", "clip", "save_minutes"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_trainings_take_finite_numbers(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name}: expected a finite number"):
        TrainSettings(base="b", out="o", **{name: value})
