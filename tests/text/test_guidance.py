import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgft_edge.errors import GuidanceError
from sgft_edge.text.guidance import Guidance, parse, violations

TWO = ("Find the eggs left.", "Find the money for them.")


@pytest.mark.parametrize(
    "text",
    [
        "1. Find the eggs left.\n2. Find the money for them.",
        "1) Find the eggs left.\n2) Find the money for them.\n",
        "(1) Find the eggs left.\n(2) Find the money for them.",
        "1: Find the eggs left.\n\n2: Find the money for them.",
        "1.Find the eggs left.\r\n2.Find the money for them.",
        "Step 1: Find the eggs left.\nStep 2: Find the money for them.",
        "STEP 1 - Find the eggs left.\nstep 2. Find the money for them.",
        "Step 1\nFind the eggs left.\nStep 2\nFind the money for them.",
        "### Step 1: Find the eggs left.\n### Step 2: Find the money for them.",
        "**Step 1:** Find the eggs left.\n**Step 2:** Find the money for them.",
        "**1.** Find the eggs left.\n**2.** Find the money for them.",
        "  1. **Find the eggs** left.\n  2. Find the money for them.",
        "Sure! It has 2 steps:\n\n1. Find the eggs left.\n2. Find the money for them.\n\nGood luck!",
        "1. Find the\n   eggs left.\n2. Find the money\nfor them.",
        "1. Find\n   - the eggs left.\n2. Find the money for them.",
        "- Find the eggs left.\n- Find the money for them.",
        "Steps:\n* Find the eggs left.\n• Find the money for them.",
        "1. Find the eggs left.\n2. Find the money for them.\n1. Start again.",
        "1. Find the eggs left.\n2. Find the money for them.\n4. Skip.\n5. Go on.",
        "3. Before.\n1. Find the eggs left.\n2. Find the money for them.",
        "1. Find the eggs left.\n2. Find the money for them.\n3.",
    ],
)
def test_forms_that_small_models_write(text: str) -> None:
    assert parse(text).steps == TWO


def test_a_step_may_go_on_with_a_decimal() -> None:
    assert parse("1. Take the\n1.5 liters.\n2. Halve them.").steps == ("Take the 1.5 liters.", "Halve them.")


@pytest.mark.parametrize("text", ["", "The answer is 18.", "1.", "2. Find the rest.", "Step one: find it."])
def test_no_guidance(text: str) -> None:
    with pytest.raises(GuidanceError, match=r"expected numbered steps.*found none"):
        parse(text)


def test_too_many_steps() -> None:
    six = "\n".join(f"{number}. Count." for number in range(1, 7))
    assert len(parse(six).steps) == 6
    with pytest.raises(GuidanceError, match="found 7"):
        parse(six + "\n7. Count.")


@given(st.lists(st.from_regex(r"[A-Z][a-z]{0,9}( [a-z]{1,9}){0,5}\.", fullmatch=True), min_size=1, max_size=6))
def test_what_is_written_is_read(steps: list[str]) -> None:
    guidance = Guidance(tuple(steps))
    assert parse(guidance.text) == guidance


@given(st.text(alphabet="Step 12.):-*#\n", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(GuidanceError):
        assert 1 <= len(parse(text).steps) <= 6


# Rows of the training data, whose guidances a teacher wrote.
GIVEN = [
    (
        "Today is my birthday and I'm three times older than I was six years ago. What is my age?",
        "1. Let the age six years ago be one share; the present age is then three such shares.\n"
        "2. Find how many shares the six years that passed stand for, by comparing the two ages in shares.\n"
        "3. Find one share by dividing the six years by that number of shares.\n"
        "4. Find the present age in years from its number of shares.",
    ),
    (
        "There are four stacks of wooden blocks. The first stack is 7 blocks tall. The second stack is 2 blocks "
        "taller than the first. The third stack is 5 blocks shorter than the second stack, and the last stack is "
        "5 blocks taller than the third stack. How many blocks are there in all the stacks together?",
        "1. Find the second stack's height from the first, being 2 blocks taller.\n"
        "2. Find the third stack's height, 5 blocks shorter than the second.\n"
        "3. Find the last stack's height, 5 blocks taller than the third.\n"
        "4. Find all the blocks by adding the four heights.",
    ),
    (
        "Would Woodrow Wilson support Plessy v. Ferguson decision?",
        "1. Recall what the Plessy v. Ferguson decision ruled about racial segregation.\n"
        "2. Recall what Woodrow Wilson did about segregation in government offices while he was president.\n"
        "3. Judge whether his actions agree with the ruling or go against it.",
    ),
]


@pytest.mark.parametrize(("question", "text"), GIVEN)
def test_guidances_in_form(question: str, text: str) -> None:
    guidance = parse(text)
    assert guidance.text == text
    assert violations(guidance, question) == ()


QUESTION = "Ann has thirty eggs, sells 1/2 of them for $2.50 each and gives 20% of 1,000 away."


@pytest.mark.parametrize(
    "step",
    [
        "Take the 30 eggs and the $2.5.",
        "Take 1/2 of them, or 20 percent of 1000.",
        "A week has seven days and a dozen twelve pieces.",
        "Use the 20-30 range, a 2.50-dollar price.",
    ],
)
def test_numbers_of_the_question_may_stand(step: str) -> None:
    assert violations(Guidance((step, "Add them.")), QUESTION) == ()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("Take 31 eggs.", "step 1: expected only numbers of the question, found 31"),
        ("Take 7.25 dollars.", "step 1: expected only numbers of the question, found 7.25"),
        ("Take 30/2 eggs.", "step 1: expected only numbers of the question, found 15"),
        ("Multiply 30 * 20.", "step 1: expected no computation, found '30 * 20"),
        ("Multiply 30 × $20.", "step 1: expected no computation"),
        ("Multiply 30 x 20.", "step 1: expected no computation"),
        ("Subtract 30 - 20.", "step 1: expected no computation, found '30 - 20"),
        ("Divide 30 / 20.", "step 1: expected no computation"),
        ("Add 30+20.", "step 1: expected no computation"),
        ("The eggs = 30.", "step 1: expected no computation, found '= 30"),
        ("The 30 = all of them.", "step 1: expected no computation"),
        ("very " * 34 + "long", "step 1: expected at most 34 words, found 35"),
    ],
)
def test_a_violation_names_its_step(step: str, message: str) -> None:
    found = violations(Guidance((step, "Add them.")), QUESTION)
    assert any(violation.startswith(message) for violation in found), found


def test_size_violations() -> None:
    assert violations(Guidance(("Add them.",)), QUESTION) == ()
    assert violations(Guidance(()), QUESTION) == ("expected 1 to 6 steps, found 0",)
    assert violations(Guidance(("Add them.",) * 7), QUESTION) == ("expected 1 to 6 steps, found 7",)
    assert violations(Guidance(("word " * 33,) * 4), QUESTION) == ("expected at most 130 words, found 132",)
