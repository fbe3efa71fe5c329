"""A trunk split where its trained part begins: the frozen part's output for a sequence never changes."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.batches import Sequences
from rlhf.models.passes.anatomy import blocks, final_norm, hidden_states, trunk
from rlhf.models.passes.packing import trunk_states


@dataclass(frozen=True, slots=True)
class SplitTrunk:
    """Two views of one trunk; they share its modules, so they see every in-place change of its weights."""

    frozen: nn.Module
    """From ids to the states that enter the first trained block."""
    trained: nn.Module
    """From these states to the trunk's last hidden states."""

    @torch.no_grad()
    def frozen_states(self, input_ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return [B, S, H], the states of ids [B, S] with real `lengths` [B] that enter the first trained block."""
        return trunk_states(self.frozen, input_ids, lengths)

    def hidden_states(self, frozen_states: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return [B, S, H], the trunk's last hidden states; `lengths` [B] as for `frozen_states`."""
        return trunk_states(self.trained, frozen_states, lengths)


def last_hidden_states(
    model: PreTrainedModel, split: SplitTrunk | None, sequences: Sequences, frozen_states: Tensor | None
) -> Tensor:
    """Return [B, S, H], the last hidden states of a trunk, from `frozen_states` [B, S, H] if these are known.

    Args:
        model: the model with this trunk.
        split: the split trunk; None if it could not be split, and then every block runs.
        sequences: B sequences of up to S tokens.
        frozen_states: theirs, None if not known.
    """
    if split is None or frozen_states is None:
        return hidden_states(model, sequences.input_ids, sequences.lengths)
    return split.hidden_states(frozen_states, sequences.lengths)


def num_frozen_blocks(model: PreTrainedModel) -> int:
    """Count the blocks below the first one that is trained; 0 when the embeddings are trained too."""
    if any(parameter.requires_grad for parameter in model.get_input_embeddings().parameters()):
        return 0
    flags = [any(parameter.requires_grad for parameter in block.parameters()) for block in blocks(model)]
    return flags.index(True) if True in flags else 0


def may_split(model: PreTrainedModel, num_frozen: int) -> bool:
    """Whether there is something to split, and all blocks are of one kind; `split_trunk` also tries it."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or [])
    return num_frozen > 0 and len(kinds) <= 1


@torch.no_grad()
def split_trunk(model: PreTrainedModel, num_frozen: int) -> SplitTrunk | None:
    """Split the trunk above its first `num_frozen` blocks.

    Returns:
        None if there is nothing to split, or if the two parts in sequence do not reproduce the trunk bit for bit, as
        in models that add something to every input, or whose blocks differ in kind.
    """
    if not may_split(model, num_frozen):
        return None
    whole, stack, norm = trunk(model), blocks(model), final_norm(model)
    frozen = _view(whole, {stack: nn.ModuleList(stack[:num_frozen])} | ({} if norm is None else {norm: nn.Identity()}))
    split = SplitTrunk(frozen, _view(whole, {stack: nn.ModuleList(stack[num_frozen:])}))
    ids = torch.tensor([[0, 1, 2]], device=model.device)
    is_exact = torch.equal(split.hidden_states(split.frozen_states(ids)), hidden_states(model, ids))
    return split if is_exact else None


def _view(module: nn.Module, replacements: dict[nn.Module, nn.Module]) -> nn.Module:
    """Return a shallow copy of a module with other children; the module itself does not change."""
    view = copy.copy(module)
    view._modules = {
        name: child if child is None else replacements.get(child, child) for name, child in module._modules.items()
    }
    return view
