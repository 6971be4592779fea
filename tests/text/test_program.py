import re
from fractions import Fraction

import pytest
from gbnf_regex import as_regex
from hypothesis import given
from hypothesis import strategies as st
from program_grammar import PROGRAM_GRAMMAR

from sgft_edge.errors import EvaluationError
from sgft_edge.text.program import Assignment, run

F = Fraction

JANET = '''Here is the program:
```python
def solution(eggs: int = 16) -> float:
    """Janet's ducks lay 16 eggs a day.

    How much does she make # every day?
    """
    eggs = 16  # a day
    eaten: int = 3

    # she also bakes
    baked = 4
    left = eggs - eaten - baked
    price = 2.0
    return left * price
```
It prints 18.
'''


def test_the_program_of_a_model() -> None:
    result = run(JANET)
    assert result.value == 18
    assert [line.name for line in result.assignments] == ["eggs", "eaten", "baked", "left", "price"]
    assert result.assignments[3] == Assignment("left", "eggs - eaten - baked", F(9), "16 - 3 - 4")


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("    total = 3 * 4\n    return total\n", F(12)),
        ("return 1 / 3", F(1, 3)),
        ("x = 1_000\nx += 5\nx *= 2 + 1\nx //= 2\nx -= 1\nx %= 1000\nx **= 2\nx /= 8", F(506**2, 8)),
        ("answer = 5\nleft = 7", F(5)),
        ("result = 1\nanswer = 5", F(5)),
        ("a = 5\nb = 7", F(7)),
        ("a = 5\nprint(a)\nb = 7", F(5)),
        ("a = 5\nprint((a + 1) * 2)", F(12)),
        ("a = 5\nprint(a + 1)  # done", F(6)),
        ("a = 5\nreturn (a)\nimport os\n}", F(5)),
        ("def solution():\n\ta = 5\n\treturn a", F(5)),
        ("'''one line'''\na = 5", F(5)),
        ('"""two\nlines"""\na = 5', F(5)),
        ("```\na = 5\n```", F(5)),
        ("```py\na = 5", F(5)),
        ("a = int(7 / 2) + round(2.5)\nreturn max(a, 1)", F(5)),
        ("rate: float = 0.05\nreturn 100 * (1 + rate) ** 2", F(441, 4)),
        ("a = 1\na = a + 1\nreturn a", F(2)),
        ("a = 5\r\nreturn a\r\n", F(5)),
        ("# \r0 ```\nreturn 5", F(5)),
    ],
)
def test_programs(source: str, value: Fraction) -> None:
    assert run(source).value == value


def test_an_augmented_assignment_keeps_its_precedence() -> None:
    assert run("x = 2\nx *= 3 + 4").assignments[1] == Assignment("x", "x * (3 + 4)", F(14), "2 * (3 + 4)")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "expected a program with an assignment or a `return`"),
        ("# only a comment", "expected a program"),
        ("import math\nx = 1", "line 1: expected `name = expression`.*found 'import math'"),
        ("x = 1\nif x == 1:\n    y = 2", "line 2: .*'if x == 1:'"),
        ("for i in range(3):\n    x = 1", "line 1: .*'for i in"),
        ("while 1:\n    x = 1", "line 1: "),
        ("x = 1\ndef f():\n    return x", "line 2: "),
        ("def f():\n  def g():\n    return 1", "line 2: "),
        ("x + 1", "line 1: "),
        ("a, b = 1, 2", "line 1: "),
        ("x = 1\n\nx == 1", "line 3: "),
        ("return 1, 2", "line 1, column 9: expected an operator or the end, found ','"),
        ("return", "line 1, column 7: expected a number"),
        ("x = ", "line 1, column 4"),
        ("x = 'eggs'", "line 1, column 5"),
        ("x = [1, 2]", "line 1, column 5"),
        ("x = 1\n    y = x / 0", "line 2, column 11: division by zero"),
        ("eggs = 1\ny = egs * 2", "line 2, column 5: unknown name 'egs'; did you mean 'eggs'?"),
        ("x = 2\nx *= 1 + $", r"line 2, column 10: .*'\$'"),
        ("x = y = 3", "line 1, column 7"),
        ("x += 1", "unknown name 'x'"),
        ("x = 1; y = 2", "line 1, column 6"),
        ("print('hi')", "line 1, column 7"),
        ("x = open(1)", "unknown name 'open'"),
        ("x = (1).real", "line 1, column 8"),
        ("x = 1\n" * 65, "at most 64 lines and 4000 characters, found 65"),
        ("# " + "x" * 4_000, "at most 64 lines"),
        ("x = " + "1+" * 999 + "1", "line 1, .*at most 2000 characters"),
        ("x = 9\n" + "x *= x\n" * 60, r"line 7, column 3: .*10\*\*60"),
    ],
)
def test_refused_programs(source: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        run(source)


@given(st.text(alphabet="ab=+-*/%() \n#'\"`:0123_,", max_size=80))
def test_any_text_runs_or_fails_with_one_clear_line(source: str) -> None:
    try:
        run(source)
    except EvaluationError as error:
        assert "\n" not in str(error)  # noqa: PT017


@given(st.from_regex(as_regex(PROGRAM_GRAMMAR), fullmatch=True))
def test_whatever_the_grammar_accepts_is_read(source: str) -> None:
    try:
        run(source)
    except EvaluationError as error:
        assert re.search(r"unknown name|division by zero|10\*\*60|000 characters", str(error))  # noqa: PT017


@pytest.mark.parametrize(
    ("source", "accepted"),
    [
        ("    # given\n    eggs = 16\n    left = eggs - 3\n    return left * 2\n", True),
        ("    x = int(7 / 2) + round(10 / (3 + 1), 2)\n    return -3 // x % 2\n", True),
        ("    return 1\n", True),
        ("    x = 1\n", False),
        ("    x = 1\n    return x", False),
        ("    return x\n    y = 1\n", False),
        ("x = 1\n    return x\n", False),
        ("    import math\n    return 1\n", False),
        ("    X = 1\n    return X\n", False),
        ("    x = 1\n" * 24 + "    return x\n", False),
    ],
)
def test_what_the_grammar_accepts(source: str, accepted: bool) -> None:
    assert bool(re.fullmatch(as_regex(PROGRAM_GRAMMAR), source)) is accepted


def test_comments_and_values_make_steps() -> None:
    result = run(
        "def solution():\n    # Find what is owed,\n    # as it stands.\n    debt = 5 - 3 * 4  # negative\n"
        "    rate1 = 1 / 3\n\n    # Grow it.\n    grown = round(debt * rate1, 2) - debt\n"
    )
    assert [(a.comment, a.computed) for a in result.assignments] == [
        ("Find what is owed, as it stands.", "5 - 3 * 4"),
        ("", "1 / 3"),
        ("Grow it.", "round((-7) * 0.3333, 2) - (-7)"),
    ]
