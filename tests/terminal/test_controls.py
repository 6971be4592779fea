"""What a stranger wrote does not steer a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgft_edge.reasoning.solution import Event
from sgft_edge.store import places
from sgft_edge.terminal import streams
from sgft_edge.terminal.display import PlainConsole, show
from sgft_edge.text.controls import on_one_line, visible

STEERING = "a\x1b]0;title\x07b\x1b[2Jc\rd\x08e\x9b2Jf\x7fg"


def test_control_characters_are_spelt_out() -> None:
    assert visible("a\x1b[2J\r\x9b\x7f") == r"a\x1b[2J\x0d\x9b\x7f"
    assert visible("two\r\nlines\tand ½ 日本") == "two\nlines\tand ½ 日本"
    assert on_one_line(" a\n b\x1b\r\n") == r"a b\x1b"


def events() -> Iterator[Event]:
    for kind in ("guidance", "expression", "value", "note", "answer"):
        yield Event(kind, STEERING)  # type: ignore[arg-type]


def test_an_answer_does_not_steer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):  # it ends without a solution
        show(events())
    shown = "".join(capsys.readouterr())
    assert shown.count(r"\x1b]0;title\x07") == 5
    assert not set(shown) & set("\x1b\x07\r\x08\x9b\x7f")


def test_tables_and_remarks_do_not_steer(capsys: pytest.CaptureFixture[str]) -> None:
    written = io.StringIO()
    PlainConsole(file=written, width=200).print(f"[bold]:smile:[/nonsense] {STEERING}")
    assert written.getvalue().startswith(r"[bold]:smile:[/nonsense] a\x1b]0;title")
    assert "\x1b" not in written.getvalue()
    streams.complain(f"two\nlines {STEERING}")
    err = capsys.readouterr().err
    assert err.startswith(r"sgft-edge: error: two lines a\x1b]0;title")
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_markup_in_a_licence_is_text(gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sgft_edge import models

    places.add("mine", gguf, licence="[/x] [red]mine")
    assert models.main(["list"]) == 0
    assert "[/x]" in capsys.readouterr().out


def test_a_terminal_gets_what_a_pipe_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal, expected in ((True, r"\x1b[2J" + "\n"), (False, "\x1b[2J\n")):
        out = io.StringIO()
        monkeypatch.setattr(out, "isatty", lambda is_terminal=is_terminal: is_terminal)
        monkeypatch.setattr("sys.stdout", out)
        streams.say("\x1b[2J")
        assert out.getvalue() == expected
