"""The padded tensors of a batch of records."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlhf.batches import PreferenceBatch, PromptBatch, TokenBatch
from rlhf.data.records import Example, Pair, Prompt


def collate_examples(examples: Sequence[Example], pad_id: int) -> TokenBatch:
    """Right-pad examples to [B, S]."""
    ids, mask = padded([example.input_ids for example in examples], pad_id)
    loss_mask = torch.zeros_like(mask)
    for row, example in enumerate(examples):
        if len(example.loss_mask) != len(example.input_ids) or example.loss_mask[0]:
            raise ValueError(f"example {row}: loss_mask must be as long as input_ids and False on the first token")
        loss_mask[row, : len(example.loss_mask)] = torch.tensor(example.loss_mask, dtype=torch.bool)
    return TokenBatch(input_ids=ids, attention_mask=mask, loss_mask=loss_mask)


def collate_pairs(pairs: Sequence[Pair], pad_id: int) -> PreferenceBatch:
    """Right-pad pairs to [B, S] and [B, S']."""
    chosen_ids, chosen_mask = padded([pair.chosen_ids for pair in pairs], pad_id)
    rejected_ids, rejected_mask = padded([pair.rejected_ids for pair in pairs], pad_id)
    return PreferenceBatch(
        chosen_ids=chosen_ids,
        chosen_mask=chosen_mask,
        rejected_ids=rejected_ids,
        rejected_mask=rejected_mask,
        margins=torch.tensor([pair.margin for pair in pairs], dtype=torch.float32),
    )


def collate_prompts(prompts: Sequence[Prompt], pad_id: int) -> PromptBatch:
    """Right-pad prompts to [B, P]."""
    ids, mask = padded([prompt.ids for prompt in prompts], pad_id)
    return PromptBatch(prompt_ids=ids, prompt_mask=mask)


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Right-pad rows of ids to [B, S] int64, on the CPU; the mask [B, S] is True on what the rows hold.

    Raises:
        ValueError: there is no row, or an empty one.
    """
    if not rows or any(len(row) == 0 for row in rows):
        raise ValueError(
            f"a batch needs at least one sequence and no empty one, found lengths {[len(r) for r in rows]}"
        )
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[number, : len(row)] = True
    return ids, mask
