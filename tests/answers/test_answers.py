import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgft_edge.answers.choices import extract_choice
from sgft_edge.answers.extraction import extract, extract_number, is_correct

F = Fraction
DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18),
        ("18.", 18),
        ("**18**", 18),
        ("$18", 18),
        ("18 dollars", 18),
        ("18kg", 18),
        ("€1.234", F("1.234")),
        ("1,234.50", F("1234.5")),
        ("$1,234,567", 1_234_567),
        (".5", F(1, 2)),
        ("20%", 20),
        ("3/4", F(3, 4)),
        ("2 1/2 cups", F(5, 2)),
        ("-7", -7),
        ("−7 degrees", -7),
        ("-$5", -5),
        ("$-5", -5),
        ("-3/4", F(-3, 4)),
        ("1.5e3", 1500),
        ("3 × 10^5", 300_000),
        (r"3 \times 10^{-2}", F(3, 100)),
        ("The answer is 18.", 18),
        ("The answer is $18 per day, for 2 ducks.", 18),
        ("The final answer is: **18**", 18),
        ("**Answer:** 18", 18),
        ("**Answer: 18 eggs**\n\nThis took 3 steps.", 18),
        ("Answer:\n18\n\n(from step 2)", 18),
        ("Answer (in dollars): 18", 18),
        ("The answer to the question of how many eggs are left is 18.", 18),
        ("The answer should be 18, not 20.", 18),
        ("The answer is 9 * 2 = $18 per day", 18),
        ("the answer is x = 18 m^2", 18),
        ("The answer is 12. Wait, the answer is 18. I checked 2 times.", 18),
        ("The answer is 18.5.", F(37, 2)),
        ("The answer is: $\\frac{3}{4}$", F(3, 4)),
        ("He eats 3.\n#### 18", 18),
        ("9*2 = <<9*2=18>>18\n#### 1,800\n", 1800),
        ("#### -4", -4),
        (r"so \boxed{18} for 2 days", 18),
        (r"The answer is $\boxed{\$18}$.", 18),
        (r"\boxed{18 \text{ dollars in 2 days}}", 18),
        (r"\boxed{\frac{1}{3}}", F(1, 3)),
        (r"\boxed{-\dfrac{1}{3}}", F(-1, 3)),
        (r"\boxed{2\frac{1}{2}}", F(5, 2)),
        (r"\boxed{1{,}200}", 1200),
        (r"\boxed{1\,200}", 1200),
        (r"\boxed{20\%}", 20),
        (r"\[ x = \boxed{x^{2} = 9} \]", 9),
        (r"\boxed{12} no, \boxed{18}", 18),
        ("The answer is 12.\n#### 18", 18),
        ("#### 12\nThe answer is 18", 18),
        ("The answer is 18.\nThe answer is unclear.", 18),
        ("So she makes 9 * 2 = $18 every day.", 18),
        ("16 - 3 - 4 = 9\n9 * 2 = 18", 18),
        ("It covers 18 m^2.", 18),
        ("a range of 10-15", 15),
        ("about 10–15", 15),
        ("To answer this question, find what 2 and 3 make: it is 5.", 5),
        ("in room B12 there are 7, as in H2O", 7),
        ("1/0", 0),
        ("9" * 5_000, None),
        ("no number here", None),
        ("The answer is", None),
        ("", None),
    ],
)
def test_extract_number(text: str, number: int | Fraction | None) -> None:
    assert extract_number(text) == number


PLACES = {"A": "bank", "B": "library", "C": "department store", "D": "store", "E": "new york"}
PRICES = {"A": "$61", "B": "$65", "C": "$67.40", "D": "-5", "E": "5(√3 + 1)"}
TRUTH = {"A": "yes", "B": "no"}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("B", "B"),
        ("b", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("(b)", "B"),
        ("**B**", "B"),
        ("B) library", "B"),
        ("(B) library", "B"),
        ("B: library", "B"),
        ("A. bank", "A"),
        ("B\n\nBooks are kept there, not in a bank.", "B"),
        ("The answer is (B).", "B"),
        ("The answer is B because a bank has no books.", "B"),
        ("The answer is A because it has money.", "A"),
        ("The correct answer is: **(b) library**", "B"),
        ("The correct option is B.", "B"),
        ("The answer is option B.", "B"),
        ("Answer: B", "B"),
        ("**Answer:** B) library", "B"),
        ("Answer:\nB", "B"),
        (r"\boxed{B}", "B"),
        (r"\boxed{\text{B}}", "B"),
        (r"The answer is $\boxed{\textbf{(B)}}$", "B"),
        ("#### B", "B"),
        ("The answer is A. Wait, no, the answer is C.", "C"),
        ("The answer is a library.", "B"),
        ("The answer is A library.", "B"),
        ("The answer is the library, not the bank.", "B"),
        ("Answer: A place for books, so a library", "B"),
        ("The answer is 'department store'.", "C"),
        ("The answer is department store", "C"),
        ("The answer is most likely a store.", "D"),
        ("The answer is New York.", "E"),
        ("A library is where books are.", "B"),
        ("A library keeps books, and a bank keeps money.", None),
        ("A revolving door is used by many.", None),
        ("It is not (A) or (C).\nSo it is (B).", "B"),
        ("(A) has money. (B) has books.", None),
        ("I would choose option B here.", "B"),
        ("Library.", "B"),
        ("You keep books in the library", "B"),
        ("You buy clothes at a department store.", "C"),
        ("The bankers went home.", None),
        ("The answer is F.", None),
        ("I don't know", None),
        ("", None),
    ],
)
def test_extract_choice(text: str, key: str | None) -> None:
    assert extract_choice(text, PLACES) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("The answer is $65.", "B"),
        ("The answer is 65 dollars.", "B"),
        ("The answer is 130 / 2 = 65", "B"),
        ("The answer is 67.4", "C"),
        ("The answer is $67.40.", "C"),
        ("The answer is -5", "D"),
        ("The answer is 5", None),
        ("The answer is $61.50", None),
        ("The answer is 5(√3 + 1).", "E"),
        ("The price was $78, so B) $65", "B"),
    ],
)
def test_choices_that_are_numbers(text: str, key: str | None) -> None:
    assert extract_choice(text, PRICES) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Yes", "A"),
        ("No.", "B"),
        ("yes, because there is no frost in May.", "A"),
        ("No, since yes would be wrong.", "B"),
        ("The answer is yes.", "A"),
        ("The answer is No", "B"),
        ("The answer is (B) no.", "B"),
        ("Frost comes in winter. So no.", "B"),
        ("Frost comes in May.\nTherefore, yes.", "A"),
        ("There is no frost in May.", None),
        ("Nobody knows.", None),
        ("A", "A"),
    ],
)
def test_yes_or_no(text: str, key: str | None) -> None:
    assert extract_choice(text, TRUTH) == key


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"Therefore, the answer is: \[ \boxed{\text{No solution}} \]", None),
        (r"It is 7. \boxed{x}", None),
        (r"The ages are \boxed{10, 15, 9}", None),
        (r"It is 7, or \boxed{3R + 2}", None),
        (r"\boxed{3 \text{ hours and } 20 \text{ minutes}}", 3),
        (r"\boxed{7} is what was asked for; \boxed{}", 7),
        ("#### Conclusion\nIt is 7.", 7),
    ],
)
def test_a_box_without_a_number_says_that_there_is_none(text: str, number: int | None) -> None:
    assert extract_number(text) == number


def test_of_a_text_that_is_cut_off_only_marks_count() -> None:
    cases = (
        ("First, 3 + 4 = 7. Then 7 + 1", None),
        (r"\boxed{7}. To check, 3 +", "7"),
        ("The answer is 1 + 4 +", None),
    )
    for text, found in cases:
        assert extract(text, whole=False) == found
    choices = {"A": "yes", "B": "no"}
    for text, found in (("(A) would mean that", None), ("The answer is no, because (A)", "B")):
        assert extract(text, choices, whole=False) == found


def test_real_outputs_are_read_as_a_reader_reads_them() -> None:
    """All but one: "The answer is H" has no number, and the last number of the text is taken for it."""
    rows = [json.loads(line) for line in (DATA / "numeric_answers.jsonl").read_text().splitlines()]
    misread = [row["source"] for row in rows if extract(row["text"], whole=row["whole"]) != row["answer"]]
    assert len(rows) == 474
    assert misread == ["gsm8k sg 89"]


def test_real_choices() -> None:
    rows = [json.loads(line) for line in (DATA / "choice_answers.jsonl").read_text().splitlines()]
    found = {row["source"]: extract(row["text"], row["choices"], whole=row["whole"]) for row in rows}
    misread = [row["source"] for row in rows if found[row["source"]] != row["answer"]]
    assert len(rows) == 110
    assert misread == [
        "csqa-train-42955a434f529cc5e6de36f0db1374e7"
    ]  # "the living room. The answer is: (D) Living room", which is (C)


def test_extract() -> None:
    assert extract("The answer is 2/3.") == "0.6667"
    assert extract("The answer is $1,200.00") == "1200"
    assert extract("nothing") is None
    assert extract("The answer is (b).", TRUTH) == "B"
    assert extract("5", TRUTH) is None


@pytest.mark.parametrize(
    ("predicted", "reference", "correct"),
    [
        ("18", "18", True),
        ("18.0", "18", True),
        ("$1,000", "1000", True),
        ("1000", "1,000", True),
        ("0.5", "1/2", True),
        ("1/2", "0.5", True),
        ("0.3333", "1/3", True),
        ("0.6667", "0.6666666667", True),
        ("2/3", "0.6666666667", True),
        ("9.4333", "9.43", True),
        ("18.8", "18.80", True),
        ("0.54", "0.5", False),
        ("0.67", "0.6666666667", False),
        ("18.004", "18", False),
        ("17", "18", False),
        ("-18", "18", False),
        ("", "18", False),
        (None, "18", False),
    ],
)
def test_is_correct(predicted: str | None, reference: str, correct: bool) -> None:
    assert is_correct(predicted, reference) is correct


@pytest.mark.parametrize(
    ("text", "reference", "correct"),
    [
        ("The answer is 5:30 pm.", "5:30 pm", True),
        ("The answer is 17:30.", "5:30 pm", True),
        ("The answer is 5:30 am.", "5:30 pm", False),
        ("The answer is 30.", "5:30 pm", False),
        ("The ratio is 3:2.", "3:2", True),
        ("The answer is 3 to 2.", "3:2", True),
        ("The ratio is 2:3.", "3:2", False),
        ("The answer is 2.", "3:2", False),
        ("The answer is (3, 4).", "3 and 4", True),
        ("The answer is 3.", "(3, 4)", False),
        ("The answer is 18.", "eighteen", True),
        ("The answer is 0.5.", "½", True),
    ],
)
def test_answer_and_reference_are_read_by_the_same_rules(text: str, reference: str, correct: bool) -> None:
    assert is_correct(extract(text), reference) is correct


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("The answer is not A but B.", "B"),
        ("The answer is A. Wait, no, it is C.", "C"),
        ("The answer is B.\n\nQuestion 2: Where is money?\nThe answer is A.", "B"),
        ("The other option is A. The answer is B.", "B"),
    ],
)
def test_denials_corrections_and_invented_problems_of_choices(text: str, key: str) -> None:
    assert extract_choice(text, PLACES) == key


def test_is_correct_with_choices() -> None:
    assert is_correct("B", "B", TRUTH)
    assert not is_correct("A", "B", TRUTH)
    assert not is_correct(None, "B", TRUTH)


@given(st.text(alphabet="answer is:=A(B)\\boxed{}#$-,./^e 0123\n", max_size=80))
def test_any_text_is_read(text: str) -> None:
    assert extract_choice(text, PRICES) in {*PRICES, None}
    number = extract_number(text)
    assert number is None or isinstance(number, Fraction)


@pytest.mark.parametrize("word", ["ſix", "ſeven", "twenty one ſixth"])
def test_letters_that_only_look_like_those_of_a_number(word: str) -> None:
    """Found by benchmarks/fuzz.py: a long s is an s to a pattern that ignores case, and not to `str.lower`."""
    assert extract(f"The answer is {word}.") in (None, "20", "21")
