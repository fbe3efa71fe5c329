import math

import pytest
import torch

from rlhf.functional.calibration import expected_calibration_error


def slow_error(margins, num_bins):
    total = 0.0
    for place in range(num_bins):
        low, high = 0.5 + place / (2 * num_bins), 0.5 + (place + 1) / (2 * num_bins)
        inside = []
        for margin in margins:
            confidence = 1 / (1 + math.exp(-abs(margin)))
            if low <= confidence < high or (place == num_bins - 1 and confidence == 1.0):
                inside.append((confidence, 1.0 if margin > 0 else 0.0))
        if inside:
            confidence = sum(pair[0] for pair in inside) / len(inside)
            accuracy = sum(pair[1] for pair in inside) / len(inside)
            total += len(inside) / len(margins) * abs(accuracy - confidence)
    return total


def test_by_hand():
    # Confidence 0.8 four times (margin +-log 4), right twice: |0.5 - 0.8| = 0.3.
    margin = math.log(4.0)
    error = expected_calibration_error(torch.tensor([margin, margin, -margin, -margin]))
    assert error.item() == pytest.approx(0.3, abs=1e-6)


def test_equals_a_slow_version():
    margins = torch.randn(200, generator=torch.Generator().manual_seed(0)) * 2
    for num_bins in (1, 5, 10):
        expected = slow_error(margins.double().tolist(), num_bins)
        assert expected_calibration_error(margins, num_bins).item() == pytest.approx(expected, abs=1e-5)


def test_a_sure_model_that_is_right_has_no_error_and_one_that_is_wrong_has_error_one():
    assert expected_calibration_error(torch.full((5,), 100.0)).item() == 0.0
    assert expected_calibration_error(torch.full((5,), -100.0)).item() == 1.0


def test_no_pairs_give_zero_and_nan_stays_visible():
    assert expected_calibration_error(torch.zeros(0)).item() == 0.0
    assert math.isnan(expected_calibration_error(torch.tensor([1.0, math.nan])).item())


def test_a_matrix_is_refused():
    with pytest.raises(ValueError, match=r"margins must be \[N\], found \[2, 2\]"):
        expected_calibration_error(torch.zeros(2, 2))
