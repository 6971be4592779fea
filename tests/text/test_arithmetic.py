from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgft_edge.errors import EvaluationError
from sgft_edge.text.arithmetic import evaluate, format_value

F = Fraction


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16 - 3", F(13)),
        ("2*(3 + 4)", F(14)),
        ("2 + 3 * 4 - 5", F(9)),
        ("10 / 4", F(5, 2)),
        ("1 / 3 * 3", F(1)),
        ("100 / 10 / 5", F(2)),
        ("1,200 * 2", F(2400)),
        ("1,234,567.5", F(2469135, 2)),
        ("0.1 + 0.2", F(3, 10)),
        (".5 * 4.", F(2)),
        ("-2 - -3", F(1)),
        ("+(4)", F(4)),
        ("007", F(7)),
        ("  3  ", F(3)),
        ("3 × 4 − 10 ÷ 5", F(10)),
        ("+".join(["1"] * 900), F(900)),
    ],
)
def test_plain_expressions(text: str, value: Fraction) -> None:
    assert evaluate(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-7 // 2", F(-4)),
        ("-7 % 3", F(2)),
        ("7.5 % 2", F(3, 2)),
        ("-2 ** 2", F(-4)),
        ("2 ** 3 ** 2", F(512)),
        ("2 ** -2", F(1, 4)),
        ("0 ** 0", F(1)),
        ("1_000 * eggs", F(3000)),
        ("1e3 + 2.5E-1", F(4001, 4)),
        ("int(-3.7)", F(-3)),
        ("float(eggs) / 2", F(3, 2)),
        ("round(2.5) + round(3.5)", F(6)),
        ("round(1 / 3, 2)", F(33, 100)),
        ("round(1250, -2)", F(1200)),
        ("abs(-3)", F(3)),
        ("max(1, 2, min(eggs, 4))", F(3)),
        ("max", F(8)),
        ("sqrt(144) + sqrt(0) + sqrt(2.25)", F(27, 2)),
        ("cbrt(-27) + cbrt(1 / 8) + cbrt(10 ** 60)", F(10) ** 20 - F(5, 2)),
        ("(-1) ** 999 + 0 ** 10 ** 9", F(-1)),
        ("2 ** 199", F(2) ** 199),
    ],
)
def test_program_expressions(text: str, value: Fraction) -> None:
    assert evaluate(text, {"eggs": F(3), "max": F(8)}) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"column 1: expected a number or '\(', found the end"),
        ("5 / 0", "column 3: division by zero"),
        ("5 / (2 - 2)", "column 3: division by zero"),
        ("2 $ 3", r"column 3: .* found '\$'"),
        ("(2 + 3", r"column 7: expected '\)', found the end"),
        ("2 + 3)", r"column 6: expected an operator or the end, found '\)'"),
        ("3 4", "column 3: expected an operator"),
        ("2 + * 3", r"column 5: expected a number or '\(', found '\*'"),
        ("1,20", "column 2"),
        ("1234,567", "column 5"),
        ("eggs * 2", "column 1"),
        ("2 ** 3", "column 4"),
        ("7 // 2", "column 4"),
        ("9" * 61, r"column 1: expected numbers up to 10\*\*60"),
        ("1" + "0" * 40 + "*1" + "0" * 40, r"column 42: .*10\*\*60"),
        ("1 / 1" + "0" * 40 + " / 1" + "0" * 40, r"10\*\*60"),
        ("(" * 51 + "1" + ")" * 51, "at most 50 levels"),
        ("-" * 1_000 + "1", "at most 50 levels"),
        ("1+" * 1_000 + "1", "at most 2000 characters, found 2001"),
    ],
)
def test_refused_plain_expressions(text: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("egs * 2", "column 1: unknown name 'egs'; did you mean 'eggs'?"),
        ("zzz", "unknown name 'zzz'; known: eggs"),
        ("5 % 0", "column 3: division by zero"),
        ("5 // 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("2 ** 0.5", "column 3: expected a whole exponent"),
        ("2 ** 201", "whole exponent of at most 200"),
        ("9 ** 64", "10\\*\\*60"),
        ("1e65", "10\\*\\*60"),
        ("1e" + "9" * 500, "exponent of at most 200"),
        ("sqrt(2)", r"sqrt\(\): expected a number with a rational root, found 2"),
        ("sqrt(-4)", "rational root"),
        ("cbrt(9)", "rational root"),
        ("2 ** " * 60 + "1", "at most 50 levels"),
        ("max(3)", r"max\(\) does not take these 1 arguments"),
        ("int(1, 2)", r"int\(\) does not take"),
        ("round(1, 0.5)", r"round\(\) does not take"),
        ("eggs(2)", "column 5"),
        ("2 eggs", "column 3"),
        ("1,200", "column 2"),
        ("eggs.real", "column 5"),
        ("'a'", "column 1"),
        ("__import__(1)", "unknown name '__import__'"),
    ],
)
def test_refused_program_expressions(text: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate(text, {"eggs": F(3)})


@given(st.text(alphabet="0123456789.,_+-*/%() xe", max_size=60))
def test_any_text_has_a_value_or_one_clear_line(text: str) -> None:
    for names in (None, {"x": F(2)}):
        try:
            assert isinstance(evaluate(text, names), Fraction)
        except EvaluationError as error:
            assert "\n" not in str(error)  # noqa: PT017


@given(st.recursive(st.integers(0, 99).map(str), lambda inner: st.tuples(
    st.sampled_from(["{} + {}", "{} - {}", "{} * {}", "({} + {})", "({} - {})", "-({} * {})", "{} // 7 + {} % 5"]),
    inner, inner).map(lambda made: made[0].format(*made[1:])), max_leaves=8))  # fmt: skip
def test_agrees_with_python(text: str) -> None:
    assert evaluate(text, {}) == eval(text)  # noqa: S307 - the oracle, on text that this test made


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (F(18), "18"),
        (F(-18), "-18"),
        (F(0), "0"),
        (F(5, 2), "2.5"),
        (F(-1, 8), "-0.125"),
        (F(1, 10**6), "0.000001"),
        (F(1, 64), "0.015625"),
        (F(1, 128), "0.0078"),
        (F(1, 3), "0.3333"),
        (F(-2, 3), "-0.6667"),
        (F(20001, 20001 * 3), "0.3333"),
        (F(29999999, 30000000), "1"),
        (F(-1, 10**9), "0"),
        (F(10**15 + 1, 3), "333333333333333.6667"),
        (F(1_200_000), "1200000"),
    ],
)
def test_format_value(value: Fraction, text: str) -> None:
    assert format_value(value) == text


@given(st.fractions(max_denominator=10**7))
def test_a_formatted_value_reads_back_close(value: Fraction) -> None:
    assert abs(evaluate(format_value(value)) - value) <= F(1, 20_000)
