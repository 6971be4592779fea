"""Rows as token ids: those that the runtime decodes, with the learned ones where the runtime samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from gguf import GGUFValueType

from sgft_edge.errors import InputError, SgftError
from sgft_edge.llama.engine import Engine
from sgft_edge.llama.model import Model
from sgft_edge.llama.role import LocalRole, LocalTurn
from sgft_edge.llama.tokens import prompt_tokens, template_of
from sgft_edge.reasoning import exact, prompts
from sgft_edge.reasoning.backend import Usage
from sgft_edge.reasoning.question import Question
from sgft_edge.reasoning.settings import Settings
from sgft_edge.reasoning.task import Draft, Task
from sgft_edge.text.guidance import parse
from train.check_sg import Row, read_sg
from train.rows import ROLES, Example, Writer, end_of_turn

DEV = Path(__file__).parents[2] / "train" / "data" / "solution_guidance.dev.jsonl"
QUESTION = Question("A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?")
ROW = Row(
    "rows.jsonl",
    1,
    "bikes",
    QUESTION,
    "1. Find the money from all bikes.\n2. Take away the parts (all of them)!",
    "525",
    ("5 * 120", "600 - 75"),
)
TALK = Row(
    "rows.jsonl",
    2,
    "talk",
    Question("Sam has 7 pens, 12.50 dollars, and a bag. He buys 3 pens for 1.25 dollars each. What does he have left?"),
    "1. Note that the bag does not matter.\n2. Find the cost.\n3. Recall his money.\n4. Subtract the cost.",
    "8.75",
    (None, "3 * 1.25", None, "12.50 - 3.75"),
)


class Puppet:
    """Makes an engine's model write given tokens: the sampler, the grammars and the KV cells are the real ones."""

    def __init__(self, engine: Engine) -> None:
        self.tokens: list[int] = []
        self.sampled: list[int] = []
        real = engine.context.logits

        def logits(row: int) -> np.ndarray:
            values = np.full_like(real(row), -50.0)
            values[self.tokens[0]] = 50.0
            self.sampled.append(self.tokens.pop(0))
            return values

        engine.context.logits = logits  # type: ignore[method-assign]


class Stage:
    """Runs strategy `exact` with one model in both roles and given expressions."""

    def __init__(self, path: Path) -> None:
        self.engine = Engine(path, slots=1, window=2048, threads=1)
        self.model = self.engine.model
        self.writer = Writer(self.model)
        self.puppet = Puppet(self.engine)

    def perform(self, row: Row, plan: str) -> tuple[Draft, list[int], list[int]]:
        """The draft, the tokens before the models at the end, and where among them those are that were sampled."""
        steps = parse(row.guidance).steps
        assert row.expressions is not None
        for number, (step, expression) in enumerate(zip(steps, row.expressions, strict=True), start=1):
            if plan == "stepwise":
                self._script(*((f"{number}.",) if number > 1 else ()), first=True)
                self._script(f" {step}", "\n")
            self._script(f"{expression}{prompts.EQUALS}" if expression else prompts.NOTHING)
        if plan == "stepwise" and len(steps) < 6:
            self._script(prompts.ANSWER, first=True)
        sequence = self.engine.acquire()
        role = LocalRole("both", self.engine, template_of(self.model))
        turns = [LocalTurn(role, sequence) for _ in range(2)]
        given = row.guidance if plan == "first" else None
        settings = Settings(strategy="exact", plan=plan)
        work = exact.exact(Task(replace(row.question, guidance=given), *turns, settings, lambda event: None))
        marks: list[int] = []
        try:
            request = next(work)
            while True:
                start = len(sequence.cells) + len(sequence.pending)
                self.engine.submit(request)
                while self.engine.busy:
                    self.engine.step()
                assert request.error is None
                assert request.result is not None
                marks += range(start, start + request.result.tokens)
                request = work.send(request.result)
        except StopIteration as end:
            assert self.puppet.tokens == []
            return end.value, [token for token, _ in (*sequence.cells, *sequence.pending)], marks
        finally:
            sequence.usage = Usage()
            sequence.close()

    def _script(self, *texts: str, first: bool = False) -> None:
        for text in texts:
            tokens = self.model.tokenize(text)
            self.puppet.tokens += tokens[:1] if first else tokens


@pytest.fixture(scope="module")
def byte_stage(llama: Path) -> Iterator[Stage]:
    stage = Stage(llama)
    yield stage
    stage.engine.close()


@pytest.fixture(scope="module")
def smollm2_stage(smollm2: Path) -> Iterator[Stage]:
    stage = Stage(smollm2)
    yield stage
    stage.engine.close()


@pytest.fixture(params=["byte", "smollm2"])
def stage(request: pytest.FixtureRequest) -> Stage:
    found: Stage = request.getfixturevalue(f"{request.param}_stage")
    return found


@pytest.fixture(scope="module")
def vocabulary(llama: Path) -> Iterator[Model]:
    model = Model(llama, vocab_only=True)
    yield model
    model.close()


@pytest.fixture(scope="module")
def writer(vocabulary: Model) -> Writer:
    return Writer(vocabulary)


def example_of(writer: Writer, row: Row, role: str) -> Example:
    (example,) = writer.examples([row], role)
    assert len(example.completion) == len(example.learned)
    return example


def ids(example: Example) -> list[int]:
    return [*example.prompt, *example.completion]


def texts(model: Model, example: Example) -> list[tuple[str, bool]]:
    """The completion in stretches that are learned or not."""
    out: list[tuple[bytes, bool]] = []
    for token, learned in zip(example.completion, example.learned, strict=True):
        if out and out[-1][1] == learned:
            out[-1] = (out[-1][0] + model.piece(token), learned)
        else:
            out.append((model.piece(token), learned))
    return [(text.decode(), learned) for text, learned in out]


# Against the runtime


@pytest.mark.parametrize("row", [ROW, TALK], ids=lambda row: row.id)
def test_an_answerer_learns_from_the_tokens_of_the_runtime(stage: Stage, row: Row) -> None:
    """With a given plan, the runtime samples the expressions alone; all else before the model is forced."""
    draft, cells, sampled = stage.perform(row, "first")
    assert draft.answer == row.answer
    assert [step.expression for step in draft.steps] == list(row.expressions or ())
    example = example_of(stage.writer, row, "answerer")
    assert ids(example)[: len(cells)] == cells
    ending = [*stage.model.tokenize("\n"), *stage.model.tokenize(prompts.ANSWER)]
    assert ids(example)[len(cells) :] == ending
    begun = len(example.prompt)
    assert [begun + i for i, learned in enumerate(example.learned) if learned] == sampled


@pytest.mark.parametrize("row", [ROW, TALK], ids=lambda row: row.id)
def test_a_solver_learns_from_the_tokens_of_the_runtime(stage: Stage, row: Row) -> None:
    """Stepwise, all that the runtime samples is learned, and nothing else but the rest of what a first token tells."""
    draft, cells, sampled = stage.perform(row, "stepwise")
    assert draft.answer == row.answer
    assert draft.guidance == row.guidance
    example = example_of(stage.writer, row, "solver")
    assert ids(example) == cells
    begun = len(example.prompt)
    learned = [begun + i for i, is_learned in enumerate(example.learned) if is_learned]
    assert set(sampled) <= set(learned)
    known = [stage.model.tokenize(text) for text in ("2.", "3.", "4.", prompts.ANSWER)]
    rest = len(known[-1]) - 1 + sum(len(tokens) - 1 for tokens in known[: len(draft.steps) - 1])
    assert len(learned) == len(sampled) + rest


@pytest.mark.parametrize("plan", ["first", "stepwise"])
def test_dev_rows_are_the_tokens_of_the_runtime(byte_stage: Stage, plan: str) -> None:
    rows = [row for row in read_sg(DEV) if row.expressions and max(map(len, row.guidance.splitlines())) < 120][:20]
    assert len(rows) == 20  # whose steps have room in STEP_TOKENS of this tokenizer
    role = {"first": "answerer", "stepwise": "solver"}[plan]
    for row in rows:
        _, cells, _ = byte_stage.perform(row, plan)
        assert ids(example_of(byte_stage.writer, row, role))[: len(cells)] == cells


def test_rounded_values_are_those_of_the_runtime(byte_stage: Stage) -> None:
    """The runtime goes on with the exact value behind a rounded one."""
    row = replace(ROW, expressions=("10 / 3", "3.3333 * 3"), answer="10")
    draft, cells, _ = byte_stage.perform(row, "first")
    assert [step.value for step in draft.steps] == ["3.3333", "10"]
    assert ids(example_of(byte_stage.writer, row, "answerer"))[: len(cells)] == cells


@pytest.mark.parametrize("role", ROLES)
def test_prompts_are_those_of_the_runtime(stage: Stage, role: str) -> None:
    row = replace(ROW, question=Question("Which <|im_end|>?", {"A": "5 bikes", "B": "none"}))
    prompt = {"guide": prompts.guide, "program": prompts.program}.get(role, prompts.execute)(row.question)
    tokens, fixed = prompt_tokens(stage.model, template_of(stage.model), prompt)
    example = example_of(stage.writer, row, role)
    assert (list(example.prompt), example.fixed) == (tokens, fixed)
    assert 0 < fixed < len(tokens)
    assert example.prompt[:fixed] == example_of(stage.writer, TALK, role).prompt[:fixed]
    assert example.prompt[fixed:] != example_of(stage.writer, TALK, role).prompt[fixed:]
    assert len(example) == len(ids(example))


# What is learned


def test_a_guide_learns_the_guidance_and_to_end_there(writer: Writer, vocabulary: Model) -> None:
    example = example_of(writer, ROW, "guide")
    assert texts(vocabulary, replace(example, completion=example.completion[:-1], learned=example.learned[:-1])) == [
        (ROW.guidance, True)
    ]
    assert example.completion[:-1] == tuple(vocabulary.tokenize(ROW.guidance))
    assert example.completion[-1] == 2  # <|im_end|>
    assert all(example.learned)


def test_an_answerer_learns_the_expressions(writer: Writer, vocabulary: Model) -> None:
    assert texts(vocabulary, example_of(writer, TALK, "answerer")) == [
        ("1. Note that the bag does not matter.\n Expression: ", False),
        ("none", True),
        ("\n2. Find the cost.\n Expression: ", False),
        ("3 * 1.25 =", True),
        (" 3.75\n3. Recall his money.\n Expression: ", False),
        ("none", True),
        ("\n4. Subtract the cost.\n Expression: ", False),
        ("12.50 - 3.75 =", True),
        (" 8.75\nThe answer is", False),
    ]


def test_a_solver_learns_steps_and_expressions(writer: Writer, vocabulary: Model) -> None:
    assert texts(vocabulary, example_of(writer, ROW, "solver")) == [
        ("1.", False),
        (" Find the money from all bikes.\n", True),
        (" Expression: ", False),
        ("5 * 120 =", True),
        (" 600\n", False),
        ("2. Take away the parts (all of them)!\n", True),
        (" Expression: ", False),
        ("600 - 75 =", True),
        (" 525\n", False),
        ("The answer is", True),
    ]


def test_rows_without_expressions_are_for_the_guide_alone(writer: Writer) -> None:
    words = replace(ROW, id="words", expressions=None)
    assert [example.id for example in writer.examples([words, ROW], "guide")] == ["words", "bikes"]
    for role in ("answerer", "solver"):
        assert [example.id for example in writer.examples([words, ROW], role)] == ["bikes"]
    with pytest.raises(InputError, match="'judge'"):
        writer.examples([ROW], "judge")


@pytest.mark.parametrize(
    "change",
    [{"expressions": ("5 * 120",)}, {"expressions": ("5 * 120", "600 / 0")}, {"guidance": "No steps."}],
    ids=["too few", "no value", "no steps"],
)
@pytest.mark.parametrize("role", ["answerer", "solver"])
def test_a_row_that_cannot_be_written_is_named(writer: Writer, role: str, change: dict[str, str]) -> None:
    with pytest.raises(SgftError, match=r"rows\.jsonl.*1"):
        writer.examples([replace(ROW, **change)], role)  # type: ignore[arg-type]


# The end of a turn


def test_the_end_of_a_turn_is_that_of_the_template(stage: Stage) -> None:
    (end,) = stage.model.tokenize("<|im_end|>", special=True)
    assert end_of_turn(stage.model, template_of(stage.model)) == end


TURNS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}MARK{% endfor %}[assistant]"


@pytest.mark.parametrize(
    ("mark", "end"),
    [("<|im_end|>", "<|im_end|>"), ("\n\n", "<|endoftext|>"), ("<|endoftext|>\n", "<|endoftext|>")],
    ids=["not the vocabulary's", "none", "the vocabulary's"],
)
def test_an_end_that_the_template_chooses(tmp_path: Path, mark: str, end: str) -> None:
    """Where it puts no token that ends a generation after an answer, it is the vocabulary's own."""
    changes = {
        "tokenizer.chat_template": tiny.Entry(TURNS.replace("MARK", mark), GGUFValueType.STRING),
        "tokenizer.ggml.eos_token_id": tiny.Entry(0, GGUFValueType.UINT32),
    }
    model = Model(tiny.tiny_model(tmp_path / "model.gguf", vocab=tiny.byte_tokenizer() | changes), vocab_only=True)
    try:
        assert [end_of_turn(model, template_of(model))] == model.tokenize(end, special=True)
        assert example_of(Writer(model), ROW, "guide").completion[-1:] == tuple(model.tokenize(end, special=True))
    finally:
        model.close()
