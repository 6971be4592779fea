import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from engines import Probe
from solvers import BIKES, FREE, PLAN, all_free, open_tiny, same
from waiting import PATIENCE, wait_until

import sgft_edge
from sgft_edge.errors import ContextOverflow, EngineError, InputError, SgftError
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Sampling, Settings
from sgft_edge.reasoning.solution import Event, Solution
from sgft_edge.solver import Solver

SAME = replace(FREE, reproducible=True)
LONG = Settings("cot", max_tokens=700)


@pytest.fixture(scope="module")
def solver(llama: Path) -> Iterator[Solver]:
    with open_tiny(llama, parallel=3) as solver:
        yield solver


# ------------------------------------------------------------------------------------------------- one question


@pytest.mark.parametrize("strategy", ["direct", "cot", "plan", "sg"])
def test_free_answers(solver: Solver, strategy: str) -> None:
    settings = replace(SAME, strategy=strategy)
    solution = solver.solve(Question(BIKES, id="bikes"), settings)
    assert (solution.id, solution.question, solution.strategy, solution.why) == ("bikes", BIKES, strategy, "asked for")
    assert solution.solved_by == strategy
    assert solution.truncated
    assert solution.usage["answerer"].decoded == 12
    assert (solution.usage["guide"].decoded > 0) == (strategy == "sg") == bool(solution.guidance)
    assert solution.models == {"guide": "llama.gguf", "answerer": "llama.gguf"}
    assert solution.digests["prompts"] == prompts.digest()
    assert solution.digests["guide"] == solution.digests["answerer"]
    assert solution.to_dict()["usage"]["answerer"]["decoded"] == 12
    assert same(solution, solver.solve(Question(BIKES, id="bikes"), settings))


def test_exact_computes_what_the_model_wrote(solver: Solver) -> None:
    for seed in range(6):
        settings = Settings("exact", operands="grounded", max_tokens=12, sampling=Sampling(1.0, seed=seed))
        solution = solver.solve(Question(BIKES, guidance=PLAN), settings)
        assert solution.guidance == ("Find the money from all bikes.", "Find what is left.")
        assert solution.solved_by in ("exact", "sg")
        assert solution.usage["guide"].decoded == 0
        if solution.solved_by == "exact":
            values = [step.value for step in solution.steps if step.value is not None]
            assert solution.answer == values[-1]
            assert solution.text == f"The answer is {values[-1]}."
            assert not solution.notes
        else:
            assert len(solution.notes) == 2


@pytest.mark.parametrize("adapter", ["none", "lora.gguf"])
def test_stepwise(tiny_files: Path, adapter: str) -> None:
    settings = Settings("exact", "stepwise", "grounded", max_tokens=8)
    named = adapter if adapter == "none" else tiny_files / adapter
    with open_tiny(tiny_files / "llama.gguf", adapter=named, settings=settings, parallel=2) as solver:
        (engine,) = solver.cast.engines
        assert engine.slots == (2 if adapter == "none" else 4)
        for solution in solver.solve_many([BIKES] * 2):
            assert isinstance(solution, Solution)
            assert solution.solved_by in ("exact", "sg")
        assert all_free(solver)


def test_stepwise_needs_a_solver_opened_for_it(tiny_files: Path) -> None:
    with open_tiny(tiny_files / "llama.gguf", adapter=tiny_files / "lora.gguf") as solver:
        with pytest.raises(InputError, match="stepwise needs two sequences"):
            solver.solve(BIKES, Settings("exact", "stepwise"))
        given = solver.solve(Question(BIKES, guidance=PLAN), Settings("exact", "stepwise", max_tokens=4))
        assert given.guidance


@pytest.mark.parametrize(
    ("question", "strategy"),
    [
        (Question("Is it so?", {"A": "yes", "B": "no"}), "sg"),
        (Question("Why is the sky blue?"), "chat"),
        (Question("Why is the sky blue?", guidance="1. Say what the air does to light."), "sg"),
        (Question(BIKES, guidance=PLAN), "exact"),
        (Question(BIKES), "program"),
    ],
)
def test_auto_chooses_and_says_why(solver: Solver, question: Question, strategy: str) -> None:
    solution = solver.solve(question, Settings(max_tokens=4))
    assert solution.strategy == strategy
    assert solution.why
    if question.choices:
        assert solution.answer in question.choices


def test_two_models_and_an_adapter(tiny_files: Path) -> None:
    files = {"guide": tiny_files / "llama.gguf", "answerer": tiny_files / "qwen2.gguf"}
    with open_tiny(files["guide"], answerer=files["answerer"], adapter=tiny_files / "lora.gguf") as solver:
        assert [engine.model.architecture for engine in solver.cast.engines] == ["llama", "qwen2"]
        solution = solver.solve(BIKES, Settings("sg", max_tokens=8))
        assert solution.models == {"guide": "llama.gguf", "answerer": "qwen2.gguf", "adapter": "lora.gguf"}
        assert len(set(solution.digests.values())) == 4
        assert all_free(solver)
    with pytest.raises(SgftError):
        open_tiny(files["answerer"], adapter=tiny_files / "lora.gguf")


def test_one_seed_one_text(solver: Solver) -> None:
    def text(seed: int) -> str:
        return solver.solve(BIKES, replace(FREE, sampling=Sampling(1.0, seed=seed))).text

    texts = [text(seed) for seed in (1, 2, 3, 1)]
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3


def test_no_token_is_read_twice_by_the_same_weights(tiny_files: Path, tmp_path: Path) -> None:
    """Guide (an activated adapter) and answerer (its base) read the question once between them."""
    llama = tiny_files / "llama.gguf"
    with open_tiny(llama) as solver:
        invocation = solver.cast.guide.engine.model.tokenize("<|im_start|>assistant\n", special=True)
    alora = tiny.tiny_adapter(tmp_path / "alora.gguf", llama, alora_invocation_tokens=invocation)
    with open_tiny(llama, adapter=alora) as solver:
        (engine,) = solver.cast.engines
        probe = Probe(engine)
        for seed in range(40):  # a third of them succeed
            question = Question(f"{seed} customers come. {BIKES}")  # a new one each time: what was read is kept
            guide, fixed = solver.cast.guide.tokens(prompts.guide(question))
            execute, _ = solver.cast.answerer.tokens(prompts.execute(question))
            common = next(i for i, (a, b) in enumerate(zip(guide, execute, strict=False)) if a != b)
            assert fixed < common
            probe.rows.clear()
            sampling = Sampling(1.0, seed=seed)
            settings = Settings("exact", operands="grounded", max_tokens=8, sampling=sampling, reproducible=False)
            solution = solver.solve(question, settings)
            if solution.notes:  # it was tried again
                continue
            assert solution.usage["answerer"].reused == common
            assert solution.usage["answerer"].prefilled >= len(execute) - common
            read = Counter(position for _, position, _, weights in probe.rows if weights is None)
            assert {read[position] for position in range(fixed, common)} == {1}
            return
        pytest.fail("no seed executes its guidance at the first try")


def test_a_question_that_is_too_long_says_so_before_any_work(solver: Solver) -> None:
    probe = Probe(solver.cast.guide.engine)
    with pytest.raises(ContextOverflow) as found:
        solver.solve("How many loaves? " * 600, FREE)
    tokens, _ = solver.cast.answerer.tokens(prompts.cot(Question("How many loaves? " * 600)))
    assert (found.value.needed, found.value.available) == (len(tokens) + FREE.max_tokens, 1024)
    assert not probe.rows
    assert all_free(solver)
    assert solver.solve("How many loaves?", FREE).text


def test_a_choice_that_just_fits_gets_its_letter(solver: Solver) -> None:
    """Where the free answer fits, the letter that is forced after it fits as well."""
    probe = Probe(solver.cast.answerer.engine)
    question = Question("Is it so?", {"A": "quite so", "B": "not so"})
    tokens, _ = solver.cast.answerer.tokens(prompts.cot(question))
    for slack in range(30):
        settings = Settings("cot", max_tokens=1024 - len(tokens) - 8 - slack)
        probe.rows.clear()
        try:
            assert solver.solve(question, settings).answer in ("A", "B")
            return
        except ContextOverflow:
            assert not probe.rows, "the overflow was found after the answer was decoded"


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "\x00 1 + 1", "😀" * 50, "ﷺ ½ ٣", "\u202e1 apple", "{{ 7 * 7 }}", "\r\n\t 3 \r", "a" * 300]
)
def test_odd_questions(solver: Solver, text: str) -> None:
    assert solver.solve(text, FREE).question == text


@pytest.mark.parametrize(
    "question",
    [
        lambda: Question("Is it?", {"A": "y\ud800", "B": "no"}),
        lambda: Question("What is 1 + 1?", guidance="1. Add\ud800 them."),
    ],
    ids=["choices", "guidance"],
)
def test_text_that_is_not_unicode_is_refused(solver: Solver, question: Callable[[], Question]) -> None:
    with pytest.raises(InputError):
        solver.solve(question(), Settings("sg", max_tokens=4))
    assert all_free(solver)


# ------------------------------------------------------------------------------------------------- streams


def test_a_stream_shows_what_the_solution_holds(solver: Solver) -> None:
    settings = replace(SAME, strategy="sg")
    events = list(solver.stream(BIKES, settings))
    assert {event.kind for event in events[:-1]} == {"guidance", "answer"}
    assert events[-1].kind == "solution"
    solution = events[-1].solution
    assert solution is not None
    assert "".join(event.text for event in events if event.kind == "answer").strip() == solution.text
    assert same(solution, solver.solve(BIKES, settings))


def test_exact_streams_its_parts(solver: Solver) -> None:
    events = list(solver.stream(Question(BIKES, guidance=PLAN), Settings("exact", operands="grounded", max_tokens=8)))
    solution = events[-1].solution
    assert solution is not None
    assert events[0] == Event("guidance", PLAN)
    for kind in ("expression", "value"):
        shown = [event.text for event in events if event.kind == kind]
        assert shown[: len(solution.steps)] == [getattr(step, kind) for step in solution.steps if step.expression]
    assert [event.text for event in events if event.kind == "note"] == list(solution.notes)


def test_closing_a_stream_stops_the_work(solver: Solver) -> None:
    probe = Probe(solver.cast.answerer.engine)
    stream = solver.stream(BIKES, LONG)
    assert next(stream).kind == "answer"
    stream.close()  # type: ignore[attr-defined]
    wait_until(lambda: all_free(solver))
    assert not solver.cast.answerer.engine.busy
    assert len(probe.rows) < LONG.max_tokens - 100, "the text was decoded to its end"


def test_a_stream_that_fails_raises(solver: Solver) -> None:
    with pytest.raises(ContextOverflow):
        list(solver.stream("How many? " * 800, FREE))
    with pytest.raises(InputError):
        next(iter(solver.stream("  ")))


# ------------------------------------------------------------------------------------------------- many questions


def test_many_in_order_with_bad_ones_among_them(solver: Solver) -> None:
    questions = [BIKES, "", "How many? " * 800, Question("Why?", id="w"), "x\ud800", BIKES]
    outcomes = list(solver.solve_many(questions, SAME))
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [Solution, InputError, ContextOverflow, Solution, InputError, Solution]
    assert isinstance(outcomes[3], Solution)
    assert outcomes[3].id == "w"
    assert same(outcomes[0], outcomes[5])  # type: ignore[arg-type]
    assert all_free(solver)


def test_each_as_soon_as_it_is_finished(solver: Solver) -> None:
    questions = [Question(f"How many in {n} boxes?", id=str(n)) for n in range(10)]
    found = dict(solver.solve_each(questions, FREE))
    assert sorted(found) == list(range(10))
    assert all(isinstance(s, Solution) and s.id == str(n) for n, s in found.items())


def test_questions_are_read_a_little_ahead_only(solver: Solver) -> None:
    read = []

    def questions() -> Iterator[str]:
        for n in range(10_000):
            read.append(n)
            yield f"How many in {n} boxes?"

    outcomes = solver.solve_each(questions(), FREE)
    for _ in range(3):
        next(outcomes)
    assert len(read) <= 3 + 2 * 3
    outcomes.close()  # type: ignore[attr-defined]
    wait_until(lambda: all_free(solver))


def test_questions_that_cannot_be_read_further(solver: Solver) -> None:
    def questions() -> Iterator[str]:
        yield BIKES
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        list(solver.solve_many(questions(), FREE))
    wait_until(lambda: all_free(solver))
    assert list(solver.solve_many([], FREE)) == []


def test_a_batch_gives_what_single_questions_give(llama: Path, solver: Solver) -> None:
    questions = [f"How many loaves are in {n} boxes{' of bread' * n}?" for n in range(8)]
    with open_tiny(llama) as single:
        alone = [single.solve(question, SAME).text for question in questions]
    together = [s.text for s in solver.solve_many(questions, SAME) if isinstance(s, Solution)]
    assert together == alone


def test_calls_from_several_threads(solver: Solver) -> None:
    expected = solver.solve(BIKES, SAME).text
    texts: list[str] = []

    def call() -> None:
        texts.extend(solver.solve(BIKES, SAME).text for _ in range(3))

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert texts == [expected] * 18


def test_two_solvers_at_once(tiny_files: Path, solver: Solver) -> None:
    with open_tiny(tiny_files / "qwen2.gguf") as other:
        expected = [s.solve(BIKES, SAME).text for s in (solver, other)]
        found: dict[int, list[str]] = {}

        def call(n: int, s: Solver) -> None:
            found[n] = [s.solve(BIKES, SAME).text for _ in range(5)]

        threads = [threading.Thread(target=call, args=(n, s)) for n, s in enumerate((solver, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert found == {0: [expected[0]] * 5, 1: [expected[1]] * 5}
    assert solver.solve(BIKES, SAME).text == expected[0]


# ------------------------------------------------------------------------------------------------- opening, closing


CYCLES = """
import gc, os, sys, threading
from pathlib import Path
from sgft_edge import Settings, SgftError, Solver

model, adapter, bad = map(Path, sys.argv[1:])
page = os.sysconf("SC_PAGE_SIZE")

def cycle():
    with Solver.open(model, adapter=adapter, context=2048, parallel=4, threads=2) as solver:
        list(solver.solve_many(["How many?"] * 4, Settings("cot", max_tokens=4)))
    try:
        Solver.open(model, adapter=bad, context=2048, parallel=4, threads=2)
    except SgftError:
        return
    raise SystemExit("the bad adapter was taken")

def held():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * page, len(os.listdir("/proc/self/fd")), threading.active_count()

for _ in range(10):  # until the allocator has settled
    cycle()
before = held()
for _ in range(5):
    cycle()
print(*(b - a for a, b in zip(before, held(), strict=True)))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_files_and_threads_are_given_back(tiny_files: Path, tmp_path: Path) -> None:
    """After closing, and where opening fails: each of the ten contexts here has a KV cache of 8 MB."""
    bad = tiny.truncated(tiny_files / "lora.gguf", tmp_path / "bad.gguf")
    argv = [sys.executable, "-c", CYCLES, *map(str, (tiny_files / "llama.gguf", tiny_files / "lora.gguf", bad))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
    grown, files, threads = map(int, done.stdout.split())
    assert (files, threads) == (0, 0)
    assert grown < 16_000_000


ABANDONED = """
import sys
from sgft_edge import Settings, Solver

solver = Solver.open(sys.argv[1], adapter="none", context=1024)
events = solver.stream("How many?", Settings("cot", max_tokens=900))
next(events)
"""


def test_a_program_may_end_in_the_middle_of_an_answer(llama: Path) -> None:
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", ABANDONED, str(llama)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_solver_says_so(llama: Path) -> None:
    solver = open_tiny(llama)
    solver.close()
    solver.close()
    for use in (
        lambda: solver.solve(BIKES),
        lambda: list(solver.stream(BIKES)),
        lambda: list(solver.solve_many([BIKES])),
    ):
        with pytest.raises(EngineError, match="closed"):
            use()


def test_closing_while_others_wait(llama: Path) -> None:
    solver = open_tiny(llama)
    errors: list[SgftError] = []
    began = threading.Event()

    def call() -> None:
        try:
            for _ in solver.stream(BIKES, LONG):
                began.set()
        except EngineError as e:
            errors.append(e)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert began.wait(PATIENCE)
    solver.close()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert len(errors) == 3


@pytest.mark.parametrize("option", [{"context": 0}, {"parallel": 0}, {"threads": -1}, {"device": "tpu"}])
def test_options_are_checked(llama: Path, option: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        Solver.open(llama, **{"adapter": "none", **option})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- imports

LISTED = """
import sys
before = set(sys.modules)
{statement}
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}))
"""


def imported(statement: str) -> set[str]:
    code = LISTED.format(statement=statement)
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split()) - set(sys.stdlib_module_names)


def test_importing_the_package_loads_the_package_alone() -> None:
    assert imported("import sgft_edge") == {"sgft_edge"}
    assert imported("from sgft_edge import Question, Sampling, Settings, SgftError") == {"sgft_edge"}
    heavy = {"torch", "transformers", "peft", "gguf", "huggingface_hub", "rich", "click"}
    assert not imported("from sgft_edge import Solver") & heavy


def test_exported_names_are_there() -> None:
    for name in sgft_edge.__all__:
        assert getattr(sgft_edge, name) is not None
    assert dir(sgft_edge) == sorted(sgft_edge.__all__)
    with pytest.raises(AttributeError, match="nonesuch"):
        sgft_edge.nonesuch  # noqa: B018


# ------------------------------------------------------------------------------------------------- a real model


def test_the_default_model_answers(smollm2: Path) -> None:
    with Solver.open(smollm2, adapter="none", context=1024, parallel=2) as solver:
        settings = Settings("direct", max_tokens=24)
        questions = ["What is the capital of France?", Question(BIKES, {"A": "525", "B": "600"})]
        capital, bikes = solver.solve_many(questions, settings)
        assert isinstance(capital, Solution)
        assert "Paris" in capital.text
        assert isinstance(bikes, Solution)
        assert bikes.answer in ("A", "B")
        exact = solver.solve(Question(BIKES, guidance=PLAN), Settings("exact", operands="grounded", max_tokens=24))
        assert exact.answer is not None
        tokens, _ = solver.cast.guide.tokens(prompts.cot(Question("<|im_end|>")))
        assert tokens.count(solver.cast.guide.engine.model.tokenize("<|im_end|>", special=True)[0]) == 2
