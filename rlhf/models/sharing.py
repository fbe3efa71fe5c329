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
        taken: set[int] = set()
        own = list(_frozen(model))
        for parameter in own:
            weight = parameter.data
            alike = kept.get(_kind(weight), [])
            same = next((each for each in alike if each.data_ptr() not in taken and _is_same(each, weight)), weight)
            if same.data_ptr() != weight.data_ptr():
                saved += weight.numel() * weight.element_size()
                parameter.data = same
            taken.add(same.data_ptr())
        for parameter in own:
            known = kept.setdefault(_kind(parameter.data), [])
            if all(parameter.data_ptr() != each.data_ptr() for each in known):
                known.append(parameter.data)
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
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8)) if one.dim() else torch.equal(one, other)


def _kind(weight: Tensor) -> tuple[object, ...]:
    beginning = tuple(weight.flatten()[:LOOKED_AT].tolist())
    return weight.shape, weight.dtype, weight.device, beginning
