"""A conversation: what the model is told, what is forgotten, what is kept."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgft_edge.errors import ContextOverflow, InputError
from sgft_edge.reasoning.prompts import Prompt
from sgft_edge.reasoning.settings import Settings
from sgft_edge.reasoning.solution import Event, Solution
from sgft_edge.solver import Solver
from sgft_edge.terminal.session import Session

BIKES = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. How much is left?"
PLAIN = Settings("chat", max_tokens=8)


@pytest.fixture(scope="module")
def solver(llama: Path) -> Iterator[Solver]:
    with Solver.open(llama, adapter="none", threads=1, context=1024) as solver:
        yield solver


@pytest.fixture
def told(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """The prompts that the answerer reads."""
    prompts: list[Prompt] = []
    role = type(solver.cast.answerer)
    tokens = role.tokens

    def noted(self: object, prompt: Prompt) -> tuple[list[int], int]:
        prompts.append(prompt)
        return tokens(self, prompt)  # type: ignore[arg-type]

    monkeypatch.setattr(role, "tokens", noted)
    return prompts


def answer(events: Iterator[Event]) -> Solution:
    *_, last = events
    assert last.solution is not None
    return last.solution


def test_the_model_is_told_what_was_said(solver: Solver, told: list[Prompt]) -> None:
    session = Session(solver, PLAIN, system="Be brief.")
    first = answer(session.ask("Hello there"))
    answer(session.ask("And you?"))
    system, asked = ("system", "Be brief."), ("user", "Hello there")
    assert told[0].messages == (system, asked)
    assert told[1].messages == (system, asked, ("assistant", first.text), ("user", "And you?"))
    session.clear()
    answer(session.ask("Hello there"))
    assert told[2] == told[0]


def test_problems_are_planned_and_greetings_are_not(solver: Solver) -> None:
    session = Session(solver, Settings("auto", max_tokens=4))
    assert answer(session.ask("Hello!")).strategy == "chat"
    assert answer(session.ask(BIKES)).strategy == "program"
    followed = answer(session.ask("And with 7 bikes?"))
    assert followed.strategy == "program"
    assert followed.question.startswith(BIKES)
    assert followed.question.endswith("And with 7 bikes?")
    assert "Hello" not in followed.question


def test_what_was_computed_stays_in_view(solver: Solver, told: list[Prompt]) -> None:
    session = Session(solver, PLAIN)
    session.turns = [("user", BIKES), ("assistant", "1. Find it.\n 5 * 120 = 600\nThe answer is 600.")]
    answer(session.ask("Why?"))
    assert ("assistant", "1. Find it.\n 5 * 120 = 600\nThe answer is 600.") in told[-1].messages


def test_the_oldest_turns_go_when_the_window_is_full(solver: Solver, told: list[Prompt]) -> None:
    session = Session(solver, PLAIN, system="Be brief.")
    long = ("word " * 120).strip()
    notes = []
    for n in range(8):
        notes += [event.text for event in session.ask(f"message {n} {long}") if event.kind == "note"]
    assert notes
    assert all(note == "the oldest turns no longer fit into the context window and are left out" for note in notes)
    assert len(session.turns) == 16
    assert session.forgotten == 2 * len(notes)
    last = told[-1].messages
    assert last[0] == ("system", "Be brief.")
    assert last[-1][1].startswith("message 7")
    assert last[1] == session.turns[session.forgotten]


def test_a_message_that_can_never_fit_changes_nothing(solver: Solver) -> None:
    session = Session(solver, PLAIN)
    answer(session.ask("Hello"))
    turns = list(session.turns)
    with pytest.raises(ContextOverflow):
        list(session.ask("word " * 2000))
    assert (session.turns, session.forgotten) == (turns, 0)
    answer(session.ask("Still there?"))
    assert session.turns[:2] == turns


def test_a_stopped_answer_was_not_said_and_can_be_asked_again(solver: Solver) -> None:
    session = Session(solver, Settings("chat", max_tokens=200))
    events = session.ask("Hello")
    assert next(events).kind == "answer"
    events.close()
    assert session.turns == []
    assert answer(session.retry()).question == "Hello"
    assert session.turns[0] == ("user", "Hello")
    assert all(engine.free == engine.slots for engine in solver.cast.engines)


def test_retry_is_another_answer_to_the_same_message(solver: Solver, told: list[Prompt]) -> None:
    session = Session(solver, Settings("chat", max_tokens=24))
    answer(session.ask("Hello"))
    first = answer(session.ask("And you?"))
    second = answer(session.retry())
    third = answer(session.retry())
    assert told[1] == told[2] == told[3]
    assert len({first.text, second.text, third.text}) == 3
    assert session.settings == Settings("chat", max_tokens=24)  # what comes next is as it was asked for
    assert session.turns[-1] == ("assistant", third.text)
    assert len(session.turns) == 4


def test_retry_needs_a_message(solver: Solver) -> None:
    with pytest.raises(InputError, match="expected a message before it"):
        Session(solver, PLAIN).retry()


def test_a_saved_conversation_goes_on(solver: Solver, tmp_path: Path, told: list[Prompt]) -> None:
    session = Session(solver, PLAIN, system="Be brief.")
    answer(session.ask("Grüße, ☃"))
    session.save(tmp_path / "new" / "talk.json")
    other = Session(solver, PLAIN)
    other.load(tmp_path / "new" / "talk.json")
    assert (other.system, other.turns) == (session.system, session.turns)
    answer(session.ask("And you?"))
    answer(other.ask("And you?"))
    assert told[-1] == told[-2]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "other", "system": "", "turns": []}', "\x00\xff"]
    + [
        json.dumps({"format": "sgft-edge conversation 1", "system": "", "turns": turns})
        for turns in (3, [["user"]], [["user", "a"]], [["assistant", "a"], ["user", "b"]])
    ],
)
def test_what_is_no_conversation_is_refused_and_changes_nothing(solver: Solver, tmp_path: Path, content: str) -> None:
    session = Session(solver, PLAIN, system="Be brief.", turns=[("user", "a"), ("assistant", "b")])
    (tmp_path / "talk.json").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match="expected a conversation that /save wrote"):
        session.load(tmp_path / "talk.json")
    assert (session.system, session.turns) == ("Be brief.", [("user", "a"), ("assistant", "b")])


def test_files_that_cannot_be_read_or_written(solver: Solver, tmp_path: Path) -> None:
    session = Session(solver, PLAIN)
    with pytest.raises(InputError, match="/load: cannot read"):
        session.load(tmp_path / "none.json")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="/save: cannot write"):
        session.save(tmp_path / "file" / "talk.json")
