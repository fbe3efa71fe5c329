"""Tests of rlhf.doctor.rounding."""

import pytest
import torch

from rlhf.doctor.rounding import FLOOR, MEAN_UNITS, rounding_unit


def test_the_unit_follows_the_type_and_the_size_of_the_model(tiny_model) -> None:
    # bfloat16 keeps 8 bits: eps 2^-7, two blocks.
    assert rounding_unit(tiny_model().to(torch.bfloat16)) == pytest.approx(2**-7 * 2**0.5)
    # float32: eps 2^-23, two blocks of 32 columns, 9.5e-7, is below what is called a difference at all.
    assert rounding_unit(tiny_model()) == pytest.approx(FLOOR / MEAN_UNITS)
    wide = tiny_model(num_hidden_layers=32, hidden_size=64)
    assert rounding_unit(wide) == pytest.approx(2**-23 * (32 * 64) ** 0.5)
