"""Guidance as programs: the same answer, named values, and the prompt and adapter of strategy `program`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from convert import export_gguf
from sgft_edge.answers.extraction import is_correct
from sgft_edge.errors import InputError
from sgft_edge.llama.model import Model
from sgft_edge.llama.tokens import prompt_tokens, template_of
from sgft_edge.reasoning import prompts
from sgft_edge.reasoning.question import Question
from sgft_edge.solver import Solver
from sgft_edge.solving.adapters import AdapterFile
from sgft_edge.text.arithmetic import format_value
from sgft_edge.text.program import run
from train import sgft
from train.check_sg import Row, read_sg
from train.programs import program_of
from train.rows import Writer

DATA = Path(__file__).parents[2] / "train" / "data"
PENS = Row(
    "data.jsonl",
    1,
    "pens",
    Question("Ann has 5 boxes of 16 pens and gives 10 pens away. How many pens has she, with 3 new ones?"),
    "1. Find the pens in the boxes.\n2. Note that some go.\n3. Find the pens in the boxes afterwards.\n4. Add the new.",
    "73",
    ("5 * 16", None, "80 - 10", "70 + 3"),
)


def test_steps_are_comments_and_earlier_values_have_names() -> None:
    assert program_of(PENS).splitlines() == [
        "    # Find the pens in the boxes.",
        "    pens_in_boxes = 5 * 16",
        "    # Note that some go.",
        "    # Find the pens in the boxes afterwards.",
        "    pens_in_boxes_afterwards = pens_in_boxes - 10",
        "    # Add the new.",
        "    new = pens_in_boxes_afterwards + 3",
        "    return new",
    ]


def test_names_differ_and_a_given_number_stays() -> None:
    row = Row("", 1, "", Question("5 boxes of 16 or 80 pens?"), "1. Find it.\n2. Find it.", "85", ("5 * 16", "80 + 5"))
    assert [line.strip() for line in program_of(row).splitlines()[1::2]] == ["it = 5 * 16", "it_2 = 80 + 5"]


def test_all_data_become_programs_with_their_answers() -> None:
    rows = [row for name in ("train", "dev") for row in read_sg(DATA / f"solution_guidance.{name}.jsonl")]
    computing = [row for row in rows if row.expressions]
    assert len(computing) == 1027
    for row in computing:
        assert is_correct(format_value(run(program_of(row)).value), str(row.answer)), row.id


def test_a_program_is_learned_after_the_runtimes_prompt(llama: Path) -> None:
    model = Model(llama, vocab_only=True)
    (example,) = Writer(model).examples([PENS], "program")
    assert (list(example.prompt), example.fixed) == prompt_tokens(
        model, template_of(model), prompts.program(PENS.question)
    )
    assert b"".join(map(model.piece, example.completion[:-1])).decode() == f"{program_of(PENS)}\n```"
    assert model.token_text(example.completion[-1]) == "<|im_end|>"
    assert all(example.learned)
    with pytest.raises(InputError, match="role"):
        Writer(model).examples([PENS], "programs")


def test_an_adapter_trained_on_programs_is_on_for_them(tmp_path: Path) -> None:
    """Together with a role that reads another system message: what a batch shares is then less."""
    base = tiny.tiny_model(tmp_path / "tiny.gguf", vocab=tiny.byte_tokenizer())
    given = ["--base", str(base), "--role", "program+guide", "--rows", "8", "--epochs", "1", "--rate", "0.1"]
    assert sgft.main([*given, "--validity", "0", "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["prompts_digest"] == prompts.guide_digest(programs=True) != prompts.guide_digest()
    export = tmp_path / "export"
    assert (
        export_gguf.main([str(tmp_path / "out"), "--out", str(export), "--format", "adapter", "--verify-rows", "2"])
        == 0
    )
    (file,) = export.glob("*.gguf")
    assert AdapterFile.read(file).tasks("answerer") == {prompts.WRITE_PROGRAM}
    with Solver.open(base, adapter="none", answerer_adapter=file, threads=1) as solver:
        assert solver.cast.warnings == ()
        assert solver.cast.answerer.adapter_for(prompts.WRITE_PROGRAM) is not None
        assert solver.cast.answerer.adapter_for(prompts.EXECUTE) is None
