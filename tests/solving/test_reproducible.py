"""A question with a seed gets the same text, whatever was read before it and whatever is worked on beside it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engines import Probe, begin, run
from live import assistant
from solvers import BIKES, open_tiny, same

from sgft_edge import Question, Sampling, Settings, Solution, Solver
from sgft_edge.llama.engine import Engine, Sequence
from sgft_edge.llama.prefixes import PrefixStore
from sgft_edge.llama.tuning import Tuning
from sgft_edge.reasoning.backend import Completion, Usage

HEAD = "<|im_start|>user\nA baker bakes twelve loaves of bread each morning and sells nine of them before noon. "
ASKED = HEAD + "How many loaves are left after five days? Five, five, five, five, five."
OTHER = HEAD + "How many loaves are sold after five days?"
GREEDY, WARM = Sampling(), Sampling(1.0, seed=5)
Written = tuple[list[np.ndarray], list[Completion]]


class Case:
    """An engine in some state, and the same text written in it: `run` brings all its logits."""

    def __init__(self, model: Path, states: Path, sampling: Sampling, adapter: Path | None) -> None:
        tuning = Tuning(2, 2, batch=32, draft_tokens=3)
        self.engine = Engine(model, slots=3, window=512, tuning=tuning, prefixes=PrefixStore((), states))
        self.probe = Probe(self.engine)
        self.tokens = self.engine.model.tokenize(ASKED, special=True)
        self.fixed = len(self.engine.model.tokenize(HEAD, special=True))
        self._adapter = self.engine.adapter(adapter) if adapter else None
        self._sampling = sampling

    def sequence(self) -> Sequence:
        sequence = self.engine.acquire()
        sequence.alone = True
        return sequence

    def run(self, sequence: Sequence | None = None) -> Written:
        """The question is read, and a text written in two parts with a forced one between them."""
        sequence = sequence or self.sequence()
        sequence.begin(self.tokens, self._adapter, Usage(), self.fixed, durable=True)
        self.probe.logits.pop(sequence.slot, None)
        first = run(sequence.complete(12, ("e",), sampling=self._sampling))
        sequence.append(" and so there are left in all")
        done = first + run(sequence.complete(12, sampling=self._sampling))
        sequence.close()
        return self.probe.logits.pop(sequence.slot), done

    def work_beside(self, count: int) -> None:
        """Others have begun to read, and are not done before the question is."""
        for text in (OTHER * 3, ASKED)[:count]:
            self.engine.submit(begin(self.engine, text).complete(200))
        self.engine.step()


def fresh(case: Case) -> Written:
    return case.run()


def again(case: Case) -> Written:
    case.run()
    return case.run()


def after_another(case: Case) -> Written:
    sequence = begin(case.engine, OTHER)
    run(sequence.complete(40))
    sequence.close()
    return case.run()


def on_a_slot_that_holds_it(case: Case) -> Written:
    """What was read in other parts, without a prefix, is in the cache of every slot."""
    sequences = [begin(case.engine, case.tokens) for _ in range(3)]
    run(*(sequence.complete(2) for sequence in sequences))
    for sequence in sequences:
        sequence.close()
    return case.run()


def on_the_last_slot(case: Case) -> Written:
    taken = [case.engine.acquire(), case.engine.acquire()]
    written = case.run()
    for sequence in taken:
        sequence.close()
    return written


def with_the_prefix_of_another_text(case: Case) -> Written:
    sequence = case.engine.acquire()
    sequence.begin(case.engine.model.tokenize(OTHER, special=True), case._adapter, Usage(), case.fixed, durable=True)
    run(sequence.complete(9))
    sequence.close()
    return case.run()


def without_what_is_in_memory(case: Case) -> Written:
    """The prefix comes from disk."""
    case.run()
    case.engine.forget()
    return case.run()


def beside_another(case: Case) -> Written:
    case.work_beside(1)
    return case.run()


def beside_two(case: Case) -> Written:
    case.work_beside(2)
    return case.run()


STATES = (
    again,
    after_another,
    on_a_slot_that_holds_it,
    on_the_last_slot,
    with_the_prefix_of_another_text,
    without_what_is_in_memory,
    beside_another,
    beside_two,
)


def check(model: Path, folder: Path, sampling: Sampling, adapter: Path | None = None) -> None:
    """The same bits in every logit, which no luck with the two best tokens can bring about."""
    expected: Written | None = None
    for number, state in enumerate((fresh, *STATES, fresh)):  # the last one takes the prefix over from another engine
        states = folder / ("shared" if state is fresh else str(number))
        case = Case(model, states, sampling, adapter)
        logits, texts = state(case)
        case.engine.close()
        expected = expected or (logits, texts)
        assert texts == expected[1], state.__name__
        assert len(logits) == len(expected[0]) > 1
        assert all(map(np.array_equal, logits, expected[0])), state.__name__


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_no_bit_of_a_logit_depends_on_the_state_of_the_engine(
    tiny_files: Path, tmp_path: Path, arch: str, sampling: Sampling
) -> None:
    check(tiny_files / f"{arch}.gguf", tmp_path, sampling)


def test_nor_under_an_adapter(llama: Path, lora: Path, tmp_path: Path) -> None:
    check(llama, tmp_path, WARM, lora)


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
def test_nor_of_a_real_model(smollm2: Path, tmp_path: Path, sampling: Sampling) -> None:
    check(smollm2, tmp_path, sampling)


# --------------------------------------------------------------------------------------------------- solver


def solved_in_every_state(opened: Callable[[], Solver], question: Question, settings: Settings) -> list[Solution]:
    """The question solved first, after others, beside others, and by another solver that finds prefixes on disk."""
    others = [f"{n} {BIKES}" for n in range(2)]
    plain = replace(settings, strategy="cot", sampling=Sampling(0.7), votes=1, reproducible=False)
    found = []
    with opened() as solver:
        found.append(solver.solve(question, settings))
        list(solver.solve_many(others, plain))
        found.append(solver.solve(question, settings))
        beside = [solver.submit(other, replace(plain, max_tokens=200)) for other in others]
        found.append(solver.solve(question, settings))
        for ballot in beside:
            ballot.cancel()
    with opened() as solver:
        list(solver.solve_many([question], plain))
        found.append(solver.solve(question, settings))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        Settings("sg", sampling=Sampling(1.0, seed=3)),
        Settings("exact", "stepwise", "grounded", sampling=Sampling(1.0, seed=4)),
        Settings("calc", sampling=Sampling(0.5, seed=0)),
        Settings("cot", votes=3, sampling=Sampling(seed=7)),
        Settings("chat", reproducible=True),
    ],
    ids=lambda settings: settings.strategy,
)
def test_one_seed_one_solution(tiny_files: Path, settings: Settings) -> None:
    def opened() -> Solver:
        return open_tiny(tiny_files / "llama.gguf", adapter=tiny_files / "lora.gguf", settings=settings, parallel=3)

    first, *others = solved_in_every_state(opened, Question(BIKES), replace(settings, max_tokens=16))
    assert all(same(first, other) for other in others)
    assert first.text


def test_one_seed_one_solution_of_a_real_model(smollm2: Path) -> None:
    settings = Settings("sg", max_tokens=8, sampling=Sampling(0.8, seed=11))
    question = Question("Which is heavier, a cat or a house?", history=(("user", "Hello"), ("assistant", "Hi!")))
    first, *others = solved_in_every_state(
        lambda: Solver.open(smollm2, threads=2, parallel=3, context=1024), question, settings
    )
    assert all(same(first, other) for other in others)


@pytest.mark.parametrize(
    ("settings", "alone"),
    [
        (Settings(), False),
        (Settings(sampling=Sampling(1.0)), False),
        (Settings(sampling=Sampling(seed=0)), True),
        (Settings(sampling=Sampling(1.0, seed=0), reproducible=False), False),
        (Settings(reproducible=True), True),
    ],
)
def test_who_asks_for_it(settings: Settings, alone: bool) -> None:
    assert settings.alone is alone


@pytest.mark.parametrize("asked", [{"seed": 5}, {"seed": 0, "temperature": 0}, {"reproducible": True}])
def test_a_request_with_a_seed(llama: Path, asked: dict[str, object]) -> None:
    def body(text: str, **more: object) -> dict[str, object]:
        messages = [{"role": "user", "content": text}]
        return {"messages": messages, "strategy": "chat", "max_tokens": 16, "temperature": 1, **more}

    with assistant(llama) as server:
        texts = []
        for before in ("Hello", "How many?", f"{BIKES} Is it more?", BIKES):
            assert server.chat(body(before))[0] == 200
            status, _, reply = server.chat(body(BIKES, **asked))
            assert status == 200
            texts.append(reply["choices"][0]["message"]["content"])
    assert len(set(texts)) == 1
    assert texts[0]
