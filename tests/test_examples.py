"""The examples run as they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import tiny

EXAMPLES = Path(__file__).parent.parent / "examples"


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
