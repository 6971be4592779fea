from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgft_edge.text.numerals import numbers_in

F = Fraction


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Janet has 16 eggs and eats three.", [16, 3]),
        ("It costs $1,234.50, or €.75", [F(2469, 2), F(3, 4)]),
        ("20% off", [20]),
        ("1/4 cup, 2 1/2 cups", [F(1, 4), 1, 4, F(5, 2), 2, 1, 2]),
        ("½ of it, then 2½ more", [F(1, 2), 1, 2, F(5, 2), 2, 1, 2]),
        ("5/7ths of the rate", [F(5, 7), 5, 7]),
        ("1/0", [1, 0]),
        ("٣٫٥ km and ４２ m²", [F(7, 2), 42]),
        ("-5 degrees, (-$4), 10-15 years, a 3-4 split", [-5, -4, 10, 15, 3, 4]),
        ("3:30 pm, 5kg, 2nd, B12, mp3", [3, 30, 5, 2]),
        ("twenty-five and one hundred and twenty", [25, 120]),
        ("two million three hundred thousand and five", [2_300_005]),
        ("a hundred, 5.2 million, 3 thousand", [100, 5_200_000, 3_000]),
        ("twenty one-dollar bills, five six-year-olds", [20, 1, 5, 6]),
        ("half as many, twice a week, double, triple", [F(1, 2), 1, 2, 2, 2, 3]),
        ("two dozen", [2, 12]),
        ("two-thirds, three quarters, a fifth", [F(2, 3), 2, 3, F(3, 4), 3, 4, F(1, 5), 1, 5]),
        ("The third of them stood often alone.", []),
        ("1,2000", [1, 2000]),
        ("9" * 5_000 + " or 1." + "3" * 5_000 + " or 1/" + "7" * 5_000, [1, 1]),
        ("", []),
    ],
)
def test_numbers_in(text: str, values: list[int | Fraction]) -> None:
    assert numbers_in(text) == values


@given(st.text())
def test_numbers_in_reads_any_text(text: str) -> None:
    assert all(isinstance(value, Fraction) for value in numbers_in(text))
