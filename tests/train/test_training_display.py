"""What a training shows: lines where nobody watches, a bar on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from train.display import display

SHOWN = """
from train.display import display
with display(4) as show:
    for step in range(1, 5):
        dev = {"dev_loss": 0.5, "valid": 0.75} if step == 4 else {}
        show({"step": step, "loss": 1 / step, "tokens": 300 * step, "seconds": 30.0 * step} | dev)
"""


def test_every_fiftieth_step_and_every_epoch_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with display(500) as show:
        for step in range(1, 26):
            dev = {"dev_loss": 2.0} if step == 25 else {}
            show({"step": step, "loss": 1.0, "tokens": 100 * step, "seconds": 2.0 * step} | dev)
    assert capsys.readouterr().err.splitlines() == [
        "step 10 of 500: loss 1.0000, 50 tokens a second, 16 minutes left",
        "step 20 of 500: loss 1.0000, 50 tokens a second, 16 minutes left",
        "step 25 of 500: loss 1.0000, dev loss 2.0000, 50 tokens a second, 16 minutes left",
    ]


def test_a_terminal_has_a_bar_and_keeps_the_epochs() -> None:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", SHOWN],
        stderr=theirs,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "COLUMNS": "120"},
    )
    os.close(theirs)
    written = b""
    while part := _read(ours):
        written += part
    assert child.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    assert "step 4: loss 0.2500, dev loss 0.5000, 75% valid, 10 tokens a second, 0 minutes left" in text
    assert "4/4" in text
    assert "━" in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way to say that the other side is closed
        return b""
