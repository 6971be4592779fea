"""Problems with other numbers: only where operands are certain, and the expressions still lead to the answer."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from sgft_edge.reasoning.question import Question
from sgft_edge.text.arithmetic import evaluate
from sgft_edge.text.numerals import numbers_in
from train.check_sg import Row, faults_of, read_sg
from train.renumber import renumbered

TRAIN = Path(__file__).parents[2] / "train" / "data" / "solution_guidance.train.jsonl"
PENS = Row(
    "data.jsonl",
    1,
    "pens",
    Question("Ann has 5 boxes of 16 pens, gives 10 pens away and buys three more. How many pens has she?"),
    "1. Find the pens in the boxes.\n2. Take away the 10 given pens.\n3. Add the three.",
    "73",
    ("5 * 16", "80 - 10", "70 + 3"),
)


def other(row: Row, seed: int = 0) -> Row | None:
    return renumbered(row, random.Random(seed))


def test_numbers_change_alike_everywhere() -> None:
    drawn = set()
    for seed in range(20):
        found = other(PENS, seed)
        assert found is not None
        boxes, pens, given, more = (int(number) for number in numbers_in(found.question.text))
        first, second = boxes * pens, boxes * pens - given
        assert more == 3  # in words
        assert found.expressions == (f"{boxes} * {pens}", f"{first} - {given}", f"{second} + 3")
        assert found.answer == str(second + 3)
        assert f"the {given} given pens" in found.guidance
        drawn.add((boxes, pens, given))
    assert len(drawn) > 15


@pytest.mark.parametrize(
    "change",
    [
        {"expressions": None},
        {"question": Question("Ann has no box. How many pens has she?")},
        {"expressions": ("5 * 16", "80 - 10", "70 + 4")},
        {"expressions": ("5 * 16", "10 * 8", "80 - 10")},
        {"question": Question("Ann has 5 boxes of 80 pens and 16 boxes of 10. How many pens has she?")},
        {"expressions": ("5 * 16", "80 / 0", "70 + 3")},
    ],
    ids=[
        "no expressions",
        "no numbers",
        "an operand from nowhere",
        "two steps with one value",
        "a value that is given",
        "nothing",
    ],
)
def test_what_is_not_certain_stays_as_it_is(change: dict[str, object]) -> None:
    assert other(replace(PENS, **change)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("mention", ["the 5/8 box", "5% of them", "box 5.0", "a 5-pack", "5:30"])
def test_a_number_with_another_mention_is_kept(mention: str) -> None:
    row = replace(PENS, question=Question(f"{PENS.question.text} Not {mention}."))
    found = other(row)
    assert found is not None
    assert found.question.text.startswith("Ann has 5 boxes of ")
    assert found.question.text.endswith(f"Not {mention}.")


@pytest.mark.parametrize(
    ("question", "expressions", "kept"),
    [
        (
            "A coat of 1,850 dollars is 35% off. What do I pay?",
            ("1850 * (100 - 35) / 100",),
            r"[\d,]+ dollars is \d+% off",
        ),
        ("Tax of 35% on 1,850 dollars. What do I pay?", ("0.35 * 1850", "1850 + 647.5"), r"\d+% on [\d,]+ dollars"),
        ("Ann buys 4 apples at 1.25 each. What does she pay?", ("4 * 1.25",), r"\d+ apples at \d+\.\d\d each"),
        ("Nine of us eat 45 rolls alike. How many each?", ("45 / 9",), r"[A-Z][a-z]+ of us eat \d+ rolls"),
    ],
    ids=["discount", "a percentage as a decimal", "decimals", "words"],
)
def test_each_number_is_written_as_it_was(question: str, expressions: tuple[str, ...], kept: str) -> None:
    guidance = "1. Find it.\n2. Find the sum." if len(expressions) > 1 else "1. Find it."
    row = Row("data.jsonl", 1, "one", Question(question), guidance, "1", expressions)
    drawn = [found for seed in range(20) if (found := other(row, seed))]
    assert len({found.question.text for found in drawn}) > 10
    for found in drawn:
        assert re.search(kept, found.question.text)
        given = {abs(number) for number in numbers_in(found.question.text)}
        first = {Fraction(operand) for operand in re.findall(r"[\d.]+", (found.expressions or ("",))[0] or "")}
        assert first <= given | {n / 100 for n in given} | {Fraction(100)}


@pytest.mark.parametrize(
    ("question", "guidance", "expression", "kept"),
    [
        ("Of 85 eggs 50% broke. How many broke?", "1. Find the half of the eggs.", "85 / 2", "50%"),
        ("In the barn: 14 cows, 9 goats, 31 hens, 4 pigs. Sum?", "1. Add the four kinds.", "14 + 9 + 31 + 4", "4 pigs"),
        ("A third of 27 eggs and 3 more. How many?", "1. Find a third and the rest.", "27 / 3 + 3", "A third"),
    ],
)
def test_a_number_that_words_stand_for_is_kept(question: str, guidance: str, expression: str, kept: str) -> None:
    row = Row("data.jsonl", 1, "one", Question(question), guidance, "1", (expression,))
    for seed in range(10):
        found = other(row, seed)
        assert found is None or (kept in found.question.text and found.guidance == guidance)


def test_facts_of_life_are_kept() -> None:
    row = replace(
        PENS, question=Question("A shop sells 7 pens a day, 35 in all. How many days?"), guidance="", answer="5"
    )
    row = replace(row, guidance="1. Find the days.\n2. Say them.", expressions=("35 / 7", None))
    found = other(row)
    assert found is not None
    assert "7 pens a day" in found.question.text


def test_most_of_the_data_can_be_renumbered_without_fault() -> None:
    rows = [row for row in read_sg(TRAIN) if row.expressions][:300]
    pairs = [(row, other(row, row.line)) for row in rows]
    changed = [(row, found) for row, found in pairs if found]
    assert len(changed) > 150
    for row, found in changed:
        assert not list(faults_of(found))
        assert found.expressions is not None
        assert len(found.expressions) == len(row.expressions or ())
        numbers = [*numbers_in(row.question.text), *(evaluate(part) for part in row.expressions or () if part)]
        fractions = any(n.denominator > 1 for n in numbers) or re.search(r"[0-9]\.[0-9]", row.question.text)
        assert fractions or "." not in (found.answer or "")
