import re

import pytest
from gbnf_regex import as_regex
from hypothesis import given
from hypothesis import strategies as st

from sgft_edge.errors import EvaluationError
from sgft_edge.text.arithmetic import evaluate
from sgft_edge.text.gbnf import expression_grammar, gbnf_literal


@pytest.mark.parametrize("numbers", [None, ["16", "0.5", "1,200", "-3"]])
def test_whatever_the_grammar_accepts_is_read(numbers: list[str] | None) -> None:
    pattern = as_regex(expression_grammar("\n", numbers))

    @given(st.from_regex(pattern, fullmatch=True))
    def check(text: str) -> None:
        try:
            evaluate(text.removesuffix("\n"))
        except EvaluationError as error:
            assert re.search(r"division by zero|10\*\*60|2000 characters", str(error))  # noqa: PT017

    check()


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("16 - 3 - 4;", True),
        ("(2 + 3)*1.25;", True),
        ("((1 + 2) * (3 - (4 / 5)));", True),
        ("-3 + 4;", True),
        ("((((1))));", False),
        ("16 -;", False),
        ("1,200;", False),
        ("16 - 3", False),
        ("nothing;", False),
    ],
)
def test_what_the_grammar_accepts(text: str, accepted: bool) -> None:
    assert bool(re.fullmatch(as_regex(expression_grammar(";")), text)) is accepted


def test_operands_are_held_to_the_given_numbers() -> None:
    pattern = as_regex(expression_grammar('"\n', ["16", "3", "16"], nothing="no \\ work"))
    assert re.fullmatch(pattern, '16 * (3 - 16)"\n')
    assert re.fullmatch(pattern, "no \\ work")
    assert not re.fullmatch(pattern, '16 * 4"\n')


@pytest.mark.parametrize("number", ["1/2", "x", "", "16 ", "½"])
def test_an_operand_must_be_a_plain_number(number: str) -> None:
    with pytest.raises(EvaluationError, match="expected numbers"):
        expression_grammar("\n", [number])


def test_gbnf_literal() -> None:
    assert gbnf_literal('a"b\\c\n\t') == r'"a\"b\\c\n\t"'
