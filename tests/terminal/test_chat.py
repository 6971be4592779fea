"""The command `chat`, from a pipe and on a terminal."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OPTIONS = ("--adapter", "none", "--threads", "1", "--context", "1024")
PATIENCE = 60.0
PROMPT = "‹[^›]*$"
"""What `until` waits for before keys are sent: earlier ones would reach a terminal that is not yet the prompt's."""


def chat(model: Path, typed: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sgft_edge.cli", "chat", "--guide", str(model), *OPTIONS, *options],
        input=typed,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_lines_from_a_pipe(llama: Path, tmp_path: Path) -> None:
    done = chat(llama, f"Hello\n/save {tmp_path}/talk.json\n/stats\n/quit\nnever asked\n", "--max-tokens", "6")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Answer\n") == 1
    assert re.search(r"1 answers in [0-9.]+ s by llama.gguf on CPU\n6 tokens decoded", done.stdout)
    assert '"Hello"' in (tmp_path / "talk.json").read_text()
    again = chat(llama, "/stats\n/retry\n", "--load", f"{tmp_path}/talk.json", "--max-tokens", "6")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("Answer\n") == 1


def test_a_backslash_joins_lines(llama: Path, tmp_path: Path) -> None:
    done = chat(llama, f"one\\\ntwo\n/save {tmp_path}/talk.json\n", "--max-tokens", "2")
    assert done.returncode == 0, done.stderr
    assert '"one\\ntwo"' in (tmp_path / "talk.json").read_text()


def test_wrong_lines_end_nothing(llama: Path, tmp_path: Path) -> None:
    lines = ["/nonsense", "/strategy nonsense", "/guidance maybe", "/model nowhere.gguf", "/model", "/load", "/retry"]
    done = chat(llama, "\n".join([*lines, "Hello"]), "--max-tokens", "2")
    assert done.returncode == 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("sgft-edge: error: ")]
    assert len(errors) == len(lines)
    assert done.stdout.count("Answer\n") == 1


def test_settings_change_on_the_way(llama: Path, tiny_files: Path) -> None:
    typed = f"/strategy sg\nHello\n/guidance off\nHello\n/model {tiny_files / 'qwen2.gguf'}\nHello\n/help\n"
    done = chat(llama, typed, "--max-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Guidance\n") == 1
    assert done.stdout.count("Answer\n") == 3
    assert done.stderr.count("[planning and computing; /guidance on shows how]") == 2
    assert done.stderr.count("by llama.gguf") == 2
    assert done.stderr.count("by qwen2.gguf") == 1
    assert "/system TEXT" in done.stdout


def test_a_conversation_that_is_none(llama: Path, tmp_path: Path) -> None:
    done = chat(llama, "Hello\n", "--load", str(tmp_path / "none.json"))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("sgft-edge: error: /load: cannot read")


# --------------------------------------------------------------------------------------------------- on a terminal


@contextmanager
def terminal(model: Path, *options: str) -> Iterator[tuple[Callable[[str], None], Callable[[str], str]]]:
    """`type_in` sends keys, `until` reads the screen until a pattern appears in what is new.

    What a prompt shows is between ‹ and ›, where it switches bracketed paste on and off.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sgft_edge.cli", "chat", "--guide", str(model), *OPTIONS, *options],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        preexec_fn=_own_terminal,
    )
    os.close(theirs)

    def type_in(keys: str) -> None:
        os.write(ours, keys.encode())

    def until(pattern: str) -> str:
        raw, seen, end = "", "", time.monotonic() + PATIENCE
        while not re.search(pattern, seen, re.DOTALL):
            assert time.monotonic() < end, seen
            if select.select([ours], [], [], 0.1)[0]:
                part = os.read(ours, 65536).decode(errors="replace")
                if "\x1b[6n" in part:  # where is the cursor?
                    os.write(ours, b"\x1b[1;1R")
                raw += part
                seen = raw.replace("\x1b[?2004h", "‹").replace("\x1b[?2004l", "›")
                seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
        return seen

    try:
        yield type_in, until
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches it


def test_ctrl_c_stops_the_answer_and_not_the_program(llama: Path) -> None:
    with terminal(llama, "--strategy", "chat", "--context", "2048", "--max-tokens", "1900") as (type_in, until):
        until(PROMPT)
        type_in("Hello\r")
        until(r"Answer\s+\S+")
        type_in("\x03")
        assert "[stopped; /retry asks again]" in until(rf"asks again.*{PROMPT}")
        type_in("/stats\r")
        assert "0 answers" in until(rf"MB at most.*{PROMPT}")
        type_in("half a line\x03")  # at the prompt it only clears the line
        until(rf"half a line.*›.*{PROMPT}")
        type_in("\x04")


def test_lines_and_their_history_on_a_terminal(llama: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with terminal(llama, "--max-tokens", "2") as (type_in, until):
            until(PROMPT)
            type_in("one\\\rtwo\x1b\rthree\r")
            until(rf"tokens decoded.*{PROMPT}")
            type_in(f"/save {tmp_path}/talk.json\r")
            until(rf"›.*{PROMPT}")
            type_in("/quit\r")
        assert '"one\\ntwo\\nthree"' in (tmp_path / "talk.json").read_text()
    history = tmp_path / "cache" / "chat_history"
    assert history.read_text().count("+two") == 2
    assert history.stat().st_mode & 0o077 == 0


def test_a_history_that_cannot_be_kept(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SGFT_EDGE_CACHE", str(tmp_path / "file"))
    with terminal(llama, "--max-tokens", "2") as (type_in, until):
        assert "what is typed is not remembered" in until(PROMPT)
        type_in("Hello\r")
        until(rf"tokens decoded.*{PROMPT}")
        type_in("\x04")
