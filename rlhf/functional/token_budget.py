"""Grouping rows of unequal length into batches of bounded size."""

from collections.abc import Sequence

MOST_PADDING = 2
"""Rows x longest row of a packed batch, in budgets: its attention still reads rows, and its scores take memory."""


def token_budget_batches(lengths: Sequence[int], max_tokens: int, *, packs: bool = False) -> list[list[int]]:
    """Group the indices of `lengths`, shortest first, so that every batch is `within_budget`.

    A row that alone exceeds the budget is a batch of its own. Equal lengths stay in their order.

    Args:
        lengths: tokens of each row.
        max_tokens: of a batch, at least 1.
        packs: whether the model computes nothing for padding.

    Raises:
        ValueError: `max_tokens` is below 1.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, found {max_tokens}")
    groups: list[list[int]] = []
    tokens = 0  # of the last group
    for index in sorted(range(len(lengths)), key=lambda each: lengths[each]):
        longest = lengths[index]
        tokens += longest
        if groups and within_budget(len(groups[-1]) + 1, longest, tokens, max_tokens, packs=packs):
            groups[-1].append(index)
        else:
            groups.append([index])
            tokens = longest
    return groups


def within_budget(num_rows: int, longest: int, tokens: int, max_tokens: int, *, packs: bool) -> bool:
    """Whether rows fit into one pass: padded to the longest, or packed, with little enough padding in the attention.

    Args:
        num_rows: how many.
        longest: tokens of the longest.
        tokens: of all rows together.
        max_tokens: the budget.
        packs: whether the model computes nothing for padding.
    """
    if packs:
        return tokens <= max_tokens and num_rows * longest <= MOST_PADDING * max_tokens
    return num_rows * longest <= max_tokens
