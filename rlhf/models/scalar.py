"""The scalar model: one number for a whole sequence, read at its last token."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.models.passes.anatomy import hidden_states
from rlhf.models.pretrained.loading import scalar_head


class ScalarModel(nn.Module):
    """A sequence classifier with one label, minus `score_mean` of its config (mean score of demonstrations)."""

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        self.classifier = classifier

    @property
    def score_mean(self) -> float:
        """What is subtracted from every score, so that demonstrations have mean 0."""
        return float(getattr(self.classifier.config, "score_mean", 0.0))

    @score_mean.setter
    def score_mean(self, mean: float) -> None:
        self.classifier.config.score_mean = mean

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Return [B] float32 scores of right-padded sequences [B, S], read at the last True of `mask` [B, S].

        Padding content does not matter: the attention is causal and the score is read before it.

        Raises:
            ValueError: a sequence is empty (on a CPU).
        """
        last = mask.sum(1) - 1
        # On a GPU the host would have to wait for the answer, and `padded` refuses empty rows before.
        if last.device.type == "cpu" and bool((last < 0).any()):
            raise ValueError("every sequence needs at least one token: its score is read at the last one")
        hidden = hidden_states(self.classifier, input_ids, last + 1)
        final = hidden[torch.arange(len(last), device=last.device), last].float()
        head = scalar_head(self.classifier)
        bias = None if head.bias is None else head.bias.float()
        return nn.functional.linear(final, head.weight.float(), bias).squeeze(-1) - self.score_mean
