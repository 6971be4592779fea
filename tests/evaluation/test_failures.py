"""Classes of wrong answers: hand-made rows of each, and of what lies close by."""

from __future__ import annotations

from typing import Any

import pytest

from sgft_edge.evaluation.failures import CLASSES, equations_in, failure

BIKES = "A shop sells 5 bikes for 120 dollars each and pays 75 dollars for parts. What is left?"  # 525


def row(*expressions: str, answer: str | None, reference: str = "525", **changed: Any) -> dict[str, Any]:
    steps = [{"text": "Do it.", "expression": expression, "value": "unread"} for expression in expressions]
    return {
        "correct": answer == reference, "question": BIKES, "choices": {}, "strategy": "exact", "solved_by": "exact",
        "guidance": ["Find it.", "Find the rest."], "steps": steps, "text": f"The answer is {answer}.",
        "answer": answer, "reference": reference, "notes": [],
    } | changed  # fmt: skip


def said(text: str, answer: str | None = "1", **changed: Any) -> dict[str, Any]:
    return row(answer=answer, strategy="cot", solved_by="cot", guidance=[], text=text, **changed)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (row("5 * 120", "600 - 75", answer="525"), None),
        ({"correct": False, "error": "too long"}, "error"),
        (row(answer="600", solved_by="sg"), "fell back"),
        (row(answer="600", guidance=["Find it."] * 7), "invalid guidance"),
        (row(answer=None, guidance=[]), "no answer"),
        (row("5 * 120", "600 - 75", "525 * 5", answer="2625"), "too many steps"),
        (row("5 * 120", "600 + 75", answer="675"), "wrong operation"),
        (row("5 + 120", "125 - 75", answer="50"), "wrong operation"),  # what follows is computed anew
        (row("5 * 120", "75 - 600", answer="-525"), "wrong operation"),  # its operands the other way round
        (row("5 * 120", "600 - 120", answer="480"), "wrong operand"),
        (row("5 * 75", "375 - 75", answer="300"), "wrong operand"),
        (row("5 * 1,200", "6000 - 75", answer="5925"), "wrong operand"),
        (row("5 * 120", "(12 + 588) - 7", answer="593"), "wrong operand"),
        (row("5 * 120", answer="600"), "too few steps"),
        (row("5 * 5", "25 * 3", answer="75"), "too few steps"),  # for each day of a week
        (row("5 / 7", "0.7143 * 7", answer="5", reference="80"), "too few steps"),  # 5, exactly
        (row("5 * 5", "25 - 3", answer="22"), "another plan"),
        (row(answer="1", guidance=["Think.", "Say it."]), "another plan"),  # nothing to go by
        (row(answer="A", reference="B", choices={"A": "yes", "B": "no"}), "another plan"),
        (row("5 * 120", "600 // 75", answer="8", strategy="program", solved_by="program"), "wrong operation"),
        (row("round(5 * 12.0, 2)", "60 - 75", answer="-15", strategy="program", solved_by="program"), "wrong operand"),
        (row("max(5, 120)", "120 - 75", answer="45", strategy="program", solved_by="program"), "another plan"),
        (said("5 * 120 = 610\nThe answer is 535.", "535"), "miscalculated"),
        (said("They get $5 x 120 = $600$. So 600 + 75 = 675.", "675"), "wrong operation"),
        (said("It is 100.", "100"), "another plan"),
        (said("60/2 * 3 = 30 * 3 = 90, and 12 x 3/4 = 36/4 = 9.", "9"), "another plan"),
        (said("1/5 = 20%, so 2x + 3 = 7 and 3x - 5 = 10.", "10"), "another plan"),
        (said("3. -4 + 5 = 1", "1"), "another plan"),
        (said("1. 48 / 2 = 25", "25"), "miscalculated"),
        (said("2 + 3 = 5, so 5. + 4 = 9", "9"), "another plan"),
        (row("100", "100. * 3", answer="300", strategy="program", solved_by="program"), "another plan"),
        (row("5", "max(3, 4)", answer="4", strategy="program", solved_by="program"), "another plan"),
    ],
)  # fmt: skip
def test_the_smallest_repair_names_the_class(found: dict[str, Any], expected: str | None) -> None:
    told = failure(found)
    assert (told and told.kind) == expected
    assert expected is None or expected in CLASSES


def test_every_class_can_be_told() -> None:
    cases = test_the_smallest_repair_names_the_class.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {expected for _, expected in cases} == {None, *CLASSES}


@pytest.mark.parametrize(
    ("text", "equations"),
    [
        ("First, 5 × 120 = 600.", [("5 × 120", "600")]),
        (r"\[ 3 \times 4 = 12 \]", [("3 × 4", "12")]),
        ("That is $1,200 + $300.50 = $1,500.50 in all", [("1,200 + 300.50", "1500.50")]),
        ("(2 + 3) * 4 = 20 and 20 / 8 = 2.5", [("(2 + 3) * 4", "20"), ("20 / 8", "2.5")]),
        ("x = 5 and 7 = 7", []),
        ("5 / 0 = 0", []),
        ("1 + = 2", []),
    ],
)
def test_equations_of_a_text(text: str, equations: list[tuple[str, str]]) -> None:
    assert list(equations_in(text)) == equations


@pytest.mark.parametrize(
    ("equation", "true"),
    [
        ("10 / 3 = 3.33", True),
        ("10 / 3 = 3.34", False),
        ("10 / 3 = 3", True),
        ("10 / 4 = 3", True),  # 2.5 may be rounded up
        ("10 / 5 = 2.1", False),
        ("3 * 12 = 36.0", True),
        ("3 * 12 = 37", False),
    ],
)
def test_rounding_is_no_miscalculation(equation: str, true: bool) -> None:
    told = failure(said(equation))
    assert told is not None
    assert (told.kind == "miscalculated") != true


@pytest.mark.parametrize(
    ("found", "repair"),
    [
        (row("5 * 120", "600 - 75", "525 * 5", answer="2625"), "step 2 has it"),
        (row("5 * 120", "600 - 120", answer="480"), "step 2: 600 - 75"),
        (row("(5 + 120) * 1", "125 - 75", answer="50"), "step 1: (5 * 120) * 1"),
        (row("5 * 120", answer="600"), "step 2: 600 - 75"),
        (said("5 * 120 = 610"), "5 * 120 = 600, not 610"),
        (row(answer="600", solved_by="sg", notes=["not executed", "freely"]), "not executed; freely"),
        ({"correct": False, "error": "too long"}, "too long"),
    ],
)  # fmt: skip
def test_the_repair_is_told(found: dict[str, Any], repair: str) -> None:
    told = failure(found)
    assert told is not None
    assert told.repair == repair
