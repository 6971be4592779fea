"""Two processes train what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file

# On CPUs `accelerate launch` needs MPI for several processes; torchrun sets the same variables.


@pytest.mark.parametrize("method", ["lora", "alora"])
def test_two_processes_train_what_one_does(tmp_path: Path, method: str) -> None:
    base = tiny.tiny_model(tmp_path / "tiny.gguf", vocab=tiny.byte_tokenizer())
    given = ["-m", "train.sgft", "--base", str(base), "--role", "guide+solver", "--rows", "9", "--batch", "5"]
    given += ["--method", method, "--epochs", "2", "--validity", "2", "--rate", "0.01"]
    launch = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2"]
    found = []
    for name, start in (("one", [sys.executable]), ("two", launch)):
        out = tmp_path / name
        done = subprocess.run(
            [*start, *given, "--out", str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        found.append((metrics, load_file(out / "adapter_model.safetensors")))
        assert json.loads((out / "training.json").read_text())["processes"] == len(found)
    (one, weights), (two, others) = found
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-4)
    assert two[-1]["dev_loss"] == pytest.approx(one[-1]["dev_loss"], rel=1e-4)
    assert [row["tokens"] for row in two] == [row["tokens"] for row in one]
    assert all((weights[name] - others[name]).norm() <= 1e-2 * weights[name].norm() for name in weights)
