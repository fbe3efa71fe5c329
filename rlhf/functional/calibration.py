"""How well calibrated the probabilities of a preference model are."""

import torch
from torch import Tensor


def expected_calibration_error(margins: Tensor, num_bins: int = 10) -> Tensor:
    """Compare the confidence of a preference model with how often it is right.

    ECE = sum_k n_k / N * |accuracy_k - confidence_k|,  confidence = sigmoid(|margin|), k over equal bins of [0.5, 1]

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.

    Args:
        margins: [N] chosen score - rejected score.
        num_bins: bins of confidence.

    Returns:
        Scalar in [0, 1], 0 for no pairs.

    Raises:
        ValueError: `margins` is not a vector.
    """
    if margins.ndim != 1:
        raise ValueError(f"margins must be [N], found {list(margins.shape)}")
    confidence = margins.abs().float().sigmoid()
    correct = (margins > 0).float()
    place = ((confidence - 0.5) * 2 * num_bins).long().clamp(0, num_bins - 1)  # NaN has no bin, but shows in the sum
    gap = torch.zeros(num_bins).index_add_(0, place.cpu(), (correct - confidence).cpu())
    return gap.abs().sum() / max(len(margins), 1)
