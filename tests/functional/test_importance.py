"""Importance weights between engine and trainer: small cases worked out by hand, and their laws."""

import math

import pytest
import torch

from rlhf.functional.importance import importance_weights

MASK = torch.tensor([[True, True, True], [True, False, False]])
ENGINE = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, 7.0, math.nan]])
RATIOS = torch.tensor([[3.0, 0.25, 1.5], [0.75, 1.0, 1.0]])
TRAINER = ENGINE + RATIOS.log()
CASES = {
    # The product of the first row is 3 * 0.25 * 1.5 = 1.125.
    "token": (0.0, 2.0, [[2.0, 0.25, 1.5], [0.75, 0, 0]], 1 / 4),
    "sequence": (0.0, 2.0, [[1.125, 1.125, 1.125], [0.75, 0, 0]], 0.0),
    "icepop": (0.5, 5.0, [[3.0, 0.0, 1.5], [0.75, 0, 0]], 1 / 4),
}


@pytest.mark.parametrize("correction", list(CASES))
def test_weights_are_what_they_are_by_hand(correction: str) -> None:
    floor, cap, expected, truncated = CASES[correction]
    found = importance_weights(TRAINER, ENGINE, MASK, correction, floor, cap)  # type: ignore[arg-type]
    torch.testing.assert_close(found.weights, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert float(found.truncated) == truncated
    difference = (math.log(3) + math.log(4) + math.log(1.5) - math.log(0.75)) / 4
    assert float(found.difference) == pytest.approx(difference, rel=1e-5)
    assert float(found.largest) == pytest.approx(math.log(4), rel=1e-5)


def test_a_whole_response_is_cut_by_its_product() -> None:
    found = importance_weights(TRAINER, ENGINE, MASK, "sequence", 0.0, 1.1)
    torch.testing.assert_close(found.weights[0], torch.full((3,), 1.1))
    assert float(found.truncated) == 3 / 4


def test_icepop_drops_a_token_above_its_cap_too() -> None:
    found = importance_weights(TRAINER, ENGINE, MASK, "icepop", 0.5, 2.0)
    assert found.weights[0, 0] == 0 and float(found.truncated) == 2 / 4


@pytest.mark.parametrize("correction", list(CASES))
def test_equal_logprobs_weigh_exactly_1_and_no_gradient_flows(correction: str) -> None:
    logprobs = ENGINE.clone().requires_grad_()
    found = importance_weights(logprobs, ENGINE, MASK, correction, 0.5, 2.0)  # type: ignore[arg-type]
    assert torch.equal(found.weights, MASK.float()) and not found.weights.requires_grad
    assert (float(found.truncated), float(found.difference)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correction": "rows"}, "correction must be token, sequence or icepop, found 'rows'"),
        ({"cap": 0.9}, r"cap \(0.9\) at least 1"),
        ({"floor": 1.0}, r"floor \(1.0\) must be in \[0, 1\)"),
        ({"mask": MASK.float()}, "mask must be torch.bool"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict, message: str) -> None:
    given = {"mask": MASK, "correction": "token", "floor": 0.0, "cap": 2.0} | change
    with pytest.raises(ValueError, match=message):
        importance_weights(TRAINER, ENGINE, **given)
