"""One copy in memory of frozen weights that several models have in common."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

LOOKED_AT = 64
"""Elements at the start of a weight that must be equal before all of it is compared."""


@torch.no_grad()
def share_equal_weights(models: Sequence[nn.Module]) -> int:
    """Let frozen weights of equal shape, type, device and values lie in the same memory; no number changes.

    Equal weights within one model stay apart, since a model whose weights share memory cannot be saved. Whoever writes
    into a shared one writes into all: call it when nothing is going to change them any more.

    Args:
        models: in the order in which one is kept; each of them is saved for itself.

    Returns:
        The bytes that it saved.
    """
    kept: dict[tuple[object, ...], list[Tensor]] = {}
    saved = 0
    for model in models:
        found: dict[int, tuple[tuple[object, ...], Tensor]] = {}  # the weights of this model, by address
        for parameter in _frozen(model):
            weight, kind = parameter.data, _kind(parameter.data)
            alike = (each for each in kept.get(kind, []) if each.data_ptr() not in found)
            same = next((each for each in alike if _is_same(each, weight)), weight)
            if same.data_ptr() != weight.data_ptr():
                saved += weight.nbytes
                parameter.data = same
            found[same.data_ptr()] = kind, same
        known = {each.data_ptr() for alike in kept.values() for each in alike}
        for kind, weight in (pair for address, pair in found.items() if address not in known):
            kept.setdefault(kind, []).append(weight)
    return saved


@torch.no_grad()
def own_weights(models: Sequence[nn.Module]) -> None:
    """Give the frozen weights of models memory of their own, so that others do not see what is written into them."""
    for model in models:
        for parameter in _frozen(model):
            parameter.data = parameter.data.clone()


def _frozen(model: nn.Module) -> Iterable[nn.Parameter]:
    """Yield plain dense weights that are not trained."""
    for parameter in model.parameters():
        is_plain = type(parameter) is nn.Parameter and type(parameter.data) is Tensor
        if is_plain and not parameter.requires_grad and parameter.is_contiguous() and parameter.numel():
            yield parameter


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two weights of one shape and type have the same bytes: 0.0 equals -0.0, but is another number."""
    return torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))


def _kind(weight: Tensor) -> tuple[object, ...]:
    beginning = tuple(weight.flatten()[:LOOKED_AT].tolist())
    return weight.shape, weight.dtype, weight.device, beginning
