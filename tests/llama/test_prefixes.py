"""States of fixed prefixes on disk."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from engines import Probe, assert_read_right, by_base, run
from solvers import open_tiny
from texts import TEXT, ids

from sgft_edge import Question, Settings
from sgft_edge.llama.engine import Cell, Engine
from sgft_edge.llama.model import Adapter
from sgft_edge.llama.prefixes import PrefixStore
from sgft_edge.reasoning.backend import Usage
from sgft_edge.solver import Solver

Made = Callable[..., tuple[Engine, PrefixStore]]


@pytest.fixture
def made(llama: Path, tmp_path: Path) -> Made:
    def make(*identity: str, slots: int = 2, most_bytes: int = 10**9) -> tuple[Engine, PrefixStore]:
        store = PrefixStore(identity, tmp_path / "states", most_bytes)
        return Engine(llama, slots=slots, window=1024, prefixes=store), store

    return make


def read(engine: Engine, tokens: list[int], fixed: int, adapter: Adapter | None = None, durable: bool = True) -> Usage:
    usage, sequence = Usage(), engine.acquire()
    sequence.begin(tokens, adapter, usage, fixed, durable=durable)
    run(sequence.complete(8))
    sequence.close()
    return usage


def states(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "states").glob("*")) if (tmp_path / "states").exists() else []


def test_another_engine_takes_a_prefix_over(made: Made, llama: Path, tmp_path: Path) -> None:
    engine, _ = made()
    tokens = ids(engine, TEXT * 3)
    fixed = len(tokens) - 5
    assert read(engine, tokens, fixed).reused == 0
    engine.close()
    other, _ = made()
    probe = Probe(other)
    usage = read(other, tokens, fixed)
    assert (usage.reused, usage.prefilled) == (fixed, 5)
    assert [position for _, position, _, _ in probe.rows][:5] == list(range(fixed, fixed + 5))
    assert_read_right(llama, by_base(tokens), probe.logits[0])
    other.close()
    assert len(states(tmp_path)) == 1


def test_what_made_a_state_is_part_of_its_name(made: Made, lora: Path, tiny_files: Path) -> None:
    engine, _ = made("model")
    tokens = ids(engine, TEXT * 3)
    fixed = len(tokens) - 5
    read(engine, tokens, fixed)
    read(engine, tokens, fixed, engine.adapter(lora))
    engine.close()
    for identity, adapter, length, reused in (
        ("model", None, fixed, fixed),
        ("model", lora, fixed, fixed),
        ("model", tiny_files / "other_lora.gguf", fixed, 0),
        ("another", None, fixed, 0),
        ("model", None, fixed - 1, 0),
    ):
        other, _ = made(identity)
        usage = read(other, tokens, length, other.adapter(adapter) if adapter else None)
        assert usage.reused == reused, (identity, adapter, length)
        other.close()


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "folder"])
def test_a_damaged_state_is_decoded_anew(made: Made, llama: Path, tmp_path: Path, damage: str) -> None:
    engine, _ = made()
    tokens = ids(engine, TEXT * 3)
    fixed = len(tokens) - 5
    read(engine, tokens, fixed)
    engine.close()
    (path,) = states(tmp_path)
    raw = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        at = len(raw) // 2
        flipped = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        path.write_bytes({"cut": raw[:-1], "flip": flipped, "empty": b""}[damage])
    other, _ = made()
    probe = Probe(other)
    assert read(other, tokens, fixed).reused == 0
    assert_read_right(llama, by_base(tokens), probe.logits[0])
    other.close()
    if damage != "folder":
        assert path.read_bytes() == raw  # mended


def test_a_state_of_a_context_with_other_slots_is_decoded_anew(made: Made) -> None:
    engine, _ = made(slots=1)
    tokens = ids(engine, TEXT * 3)
    read(engine, tokens, 9)
    engine.close()
    other, _ = made(slots=2)
    assert read(other, tokens, 9).reused == 0
    other.close()


def test_a_state_that_llama_cpp_refuses_is_decoded_anew(made: Made) -> None:
    engine, store = made()
    tokens = ids(engine, TEXT * 3)
    cells: list[Cell] = [(token, None) for token in tokens[:-5]]
    store.save(cells, b"\0" * 64)
    assert store.load(cells) == b"\0" * 64
    assert read(engine, tokens, len(cells)).reused == 0
    state = store.load(cells)
    assert state is not None
    assert len(state) > 64
    engine.close()


def test_the_oldest_states_make_room(tmp_path: Path) -> None:
    store = PrefixStore((), tmp_path, most_bytes=350)
    texts: list[list[Cell]] = [[(n, None)] for n in range(4)]
    stray = tmp_path / ".state.of.a.killed.writer"
    stray.write_bytes(b"x" * 100)
    os.utime(stray, ns=(0, 0))
    for age, cells in enumerate(texts[:3]):
        store.save(cells, bytes(60))
        os.utime(max(tmp_path.glob("*.state"), key=lambda path: path.stat().st_mtime_ns), ns=(age + 1, age + 1))
    assert not stray.exists()
    assert store.load(texts[0]) is not None  # used just now
    store.save(texts[3], bytes(60))
    assert [store.load(cells) is not None for cells in texts] == [True, False, True, True]
    store.save([(9, None)], bytes(400))  # larger than all that may be kept
    assert store.load([(9, None)]) is None
    assert [store.load(cells) is not None for cells in texts] == [True, False, True, True]


def test_a_folder_that_cannot_be_written_changes_nothing(made: Made, tmp_path: Path) -> None:
    (tmp_path / "states").touch()
    engine, _ = made()
    assert read(engine, ids(engine, TEXT), 5).reused == 0
    engine.close()


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from sgft_edge.llama.prefixes import PrefixStore\n"
        "store = PrefixStore((), Path(sys.argv[1]), 10**6)\n"
        "for n in range(300):\n"
        "    cells = [(n % 20, None)]\n"
        "    state = store.load(cells)\n"
        "    assert state in (None, bytes([n % 20]) * 10**5), n\n"
        "    store.save(cells, bytes([n % 20]) * 10**5)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(4)
    ]
    assert [process.communicate(timeout=120)[1] for process in processes] == [b""] * 4
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10**6 + 4 * (10**5 + 32)


def test_the_limit_comes_from_the_environment(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGFT_EDGE_PREFIX_MB", "0")
    store = PrefixStore((), tmp_path)
    store.save([(1, None)], b"state")
    assert not list(tmp_path.iterdir())


def test_a_second_solver_reads_the_question_only(llama: Path) -> None:
    reads = []
    for _ in range(2):
        with open_tiny(llama) as solver:
            usage = solver.solve(Question("How much are 5 bikes at 120 dollars each?"), Settings("cot", max_tokens=4))
            reads.append(usage.usage["answerer"])
    assert reads[0].reused == 0
    assert reads[1].reused > 0
    assert reads[0].prefilled == reads[1].prefilled + reads[1].reused


def test_a_turn_of_a_conversation_reads_what_is_new(smollm2: Path) -> None:
    asked, again = "Name a colour and a bird.", "And a tree."
    with Solver.open(smollm2, adapter="none", threads=2) as solver:
        first = solver.solve(asked, Settings("chat", max_tokens=16))
        turns = (("user", asked), ("assistant", first.text))
        second = solver.solve(Question(again, history=turns), Settings("chat", max_tokens=4))
    before, after = (solution.usage["answerer"] for solution in (first, second))
    assert before.prefilled > 20
    assert after.reused >= before.prefilled + before.reused + before.decoded - 2  # of the last token nothing is kept
    assert after.prefilled < 20


def test_a_users_own_system_message_is_not_written_down(llama: Path, tmp_path: Path) -> None:
    history = (("system", "You are a pirate."), ("user", "Ahoy!"), ("assistant", "Arr."))
    with open_tiny(llama) as solver:
        solver.solve(Question("Where to?", history=history), Settings("chat", max_tokens=4))
        assert not list((tmp_path / "cache").glob("prefixes/*"))
