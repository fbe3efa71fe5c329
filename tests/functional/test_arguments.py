import pytest
import torch

from rlhf.functional.arguments import as_float, check_same_shape


def test_half_precision_is_widened_and_float64_is_kept():
    assert as_float(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    assert as_float(torch.ones(2, dtype=torch.int64)).dtype == torch.float32
    assert as_float(torch.ones(2, dtype=torch.float64)).dtype == torch.float64


def test_a_tensor_that_would_broadcast_is_refused_by_name():
    with pytest.raises(ValueError, match=r"kl must have the shape of rewards \[2, 3\], found \[2, 1\]"):
        check_same_shape(rewards=torch.ones(2, 3), kl=torch.ones(2, 1))


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(ValueError, match=r"mask must be torch\.bool, found torch\.int64"):
        check_same_shape(values=torch.ones(2), mask=torch.ones(2, dtype=torch.int64))
