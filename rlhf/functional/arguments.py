"""What every function in this folder requires of its tensors: equal shapes, boolean masks, float32 or wider."""

import torch
from torch import Tensor


def check_same_shape(**tensors: Tensor) -> None:
    """Refuse tensors that would broadcast against each other, and masks that are not bool.

    Args:
        **tensors: the arguments under their own names; the first gives the shape, and `mask` must be bool.

    Raises:
        ValueError: a shape differs from the first one, or `mask` is not bool.
    """
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor.shape != first.shape:
            raise ValueError(
                f"{name} must have the shape of {first_name} {list(first.shape)}, found {list(tensor.shape)}"
            )
        if name == "mask" and tensor.dtype != torch.bool:
            raise ValueError(f"mask must be torch.bool, found {tensor.dtype}")


def as_float(tensor: Tensor) -> Tensor:
    """Return `tensor` in float32, or unchanged if it is float64 already."""
    return tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
