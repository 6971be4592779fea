"""The examples run as they stand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_pipeline(tmp_path: Path) -> None:
    """From the shipped data to a solved question, with a tiny random model as the base."""
    base = tiny.tiny_model(tmp_path / "tiny.gguf", vocab=tiny.byte_tokenizer())
    out = tmp_path / "out"
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [EXAMPLES / "pipeline.sh", base, out], capture_output=True, text=True, timeout=600, check=False, env=env
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "1344 rows, 1344 without fault" in done.stdout
    assert json.loads((out / "adapter" / "training.json").read_text())["settings"]["role"] == "guide+solver"
    assert len(list((out / "export").glob("*.gguf"))) == 1
    assert "Answer" in done.stdout
    assert f"{base.name} + " in done.stderr


@pytest.mark.parametrize(("name", "expected"), [("ask.py", "answer:"), ("many.py", "asyncio:")])
def test_python(name: str, expected: str, smollm2: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, smollm2], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(expected) == {"ask.py": 2, "many.py": 6}[name]


@pytest.fixture(scope="module")
def address(llama: Path) -> Iterator[str]:
    """Where a server answers, with the tiny model."""
    command = [sys.executable, "-m", "sgft_edge.cli", "serve", "--guide", str(llama), "--adapter", "none"]
    with subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        yield line.split(" at ")[1].split("/ ")[0]
        server.terminate()


@pytest.mark.parametrize(("program", "name"), [("bash", "client.sh"), ("node", "client.mjs")])
def test_clients(program: str, name: str, address: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on this machine")
    done = subprocess.run([program, EXAMPLES / name, address], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ("data: [DONE]" if name == "client.sh" else "solved by ") in done.stdout


def test_a_client_shows_the_servers_errors(address: str) -> None:
    done = subprocess.run(
        ["bash", EXAMPLES / "client.sh", f"{address}/nowhere"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 22
    assert "Not Found" in done.stdout
