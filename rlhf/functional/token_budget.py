"""Grouping rows of unequal length into batches of bounded padded size."""

from collections.abc import Sequence


def token_budget_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group the indices of `lengths`, shortest first, so that rows x longest row stays within `max_tokens`.

    A row that alone exceeds the budget is a batch of its own. Equal lengths stay in their order.

    Args:
        lengths: tokens of each row.
        max_tokens: padded tokens of a batch, at least 1.

    Raises:
        ValueError: `max_tokens` is below 1.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, found {max_tokens}")
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda each: lengths[each]):
        if groups and (len(groups[-1]) + 1) * lengths[index] <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
