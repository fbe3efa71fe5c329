"""Tests of rlhf.lab.estimate."""

import pytest

from rlhf.lab.estimate import Estimate, shown


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (2.9951, 3, "3.00"),
        (2.9951, 4, "2.995"),
        (262144.0, 3, "262,000"),
        (0.00123, 2, "0.0012"),
        (999.0, 3, "999"),
        (64.0, 3, "64.0"),
    ],
)
def test_numbers_are_shown_with_their_significant_digits(number, digits, text):
    assert shown(number, digits) == text


def test_an_estimate_is_shown_with_its_interval():
    assert Estimate(value=1234.0, low=0.5, high=float("inf")).shown() == "1,230 [0.500, inf]"


def test_an_estimate_takes_the_format_of_a_number():
    assert f"{Estimate(value=0.5, low=-0.25, high=1.0):+.1%}" == "+50.0% [-25.0%, +100.0%]"
