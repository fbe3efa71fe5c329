"""One copy in memory of frozen weights that several models have in common."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

LOOKED_AT = 64
"""Elements at the start of a weight that must be equal before all of it is compared."""


@torch.no_grad()
def share_equal_weights(models: Sequence[nn.Module]) -> int:
    """Let frozen weights of equal shape, type, device and values lie in the same memory; no number changes.

    Whoever writes into one of them writes into all: call it when nothing is going to change them any more.

    Args:
        models: in the order in which one is kept; a weight within a model is shared too.

    Returns:
        The bytes that it saved.
    """
    kept: dict[tuple[object, ...], list[Tensor]] = {}
    places, saved = set(), 0
    for parameter in _frozen(models):
        weight = parameter.data
        if weight.data_ptr() in places:  # tied, or shared already
            continue
        alike = kept.setdefault(_kind(weight), [])
        same = next((other for other in alike if torch.equal(other, weight)), None)
        if same is None:
            alike.append(weight)
            places.add(weight.data_ptr())
        else:
            saved += weight.numel() * weight.element_size()
            parameter.data = same
    return saved


def _frozen(models: Iterable[nn.Module]) -> Iterable[nn.Parameter]:
    """Yield plain dense weights that are not trained."""
    for model in models:
        for parameter in model.parameters():
            is_plain = type(parameter) is nn.Parameter and type(parameter.data) is Tensor
            if is_plain and not parameter.requires_grad and parameter.is_contiguous() and parameter.numel():
                yield parameter


def _kind(weight: Tensor) -> tuple[object, ...]:
    beginning = tuple(weight.flatten()[:LOOKED_AT].tolist())
    return weight.shape, weight.dtype, weight.device, beginning
