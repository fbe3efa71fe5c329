"""The plain PPO update that `guard.py` times ours against, and the model as transformers has it."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.batches import Experience, join
from rlhf.config import PPOSettings

CLIP_RANGE = 0.2
"""Of ratios and of values."""


class PlainUpdate:
    """A plain version of `PPO.optimise`: float32, eager, padded rows, logits at every position."""

    def __init__(self, lm: PreTrainedModel, hidden: int, config: PPOSettings) -> None:
        """Train `lm` and a value head that starts at 0."""
        self.lm, self.config = lm, config
        self.value_head = nn.Linear(hidden, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        groups = [(lm, config.optimizer), (self.value_head, config.value_optimizer)]
        self.adam = torch.optim.AdamW(
            [{"params": list(module.parameters()), "lr": section.learning_rate} for module, section in groups],
            betas=config.optimizer.betas,
            weight_decay=0.0,
        )

    def optimise(self, experience: Experience, minibatches: Sequence[Tensor]) -> None:
        """Make `epochs` passes over the batch, with one step per minibatch."""
        for _ in range(self.config.epochs):
            for rows in minibatches:
                self.loss(experience.rows(rows)).backward()
                for module in (self.lm, self.value_head):
                    nn.utils.clip_grad_norm_(module.parameters(), self.config.optimizer.max_grad_norm)
                self.adam.step()
                self.adam.zero_grad()

    def loss(self, experience: Experience) -> Tensor:
        """Return the clipped surrogate and the clipped value loss, means over response tokens."""
        config, rollout = self.config, experience.rollout
        mask = rollout.response_mask
        sequences = join(rollout.prompt_ids, rollout.prompt_mask, rollout.response_ids, mask)
        padding = torch.arange(sequences.input_ids.shape[1]) < sequences.lengths[:, None]
        output = self.lm(
            input_ids=sequences.input_ids, attention_mask=padding, use_cache=False, output_hidden_states=True
        )
        every = output.logits[:, :-1].float().log_softmax(-1).gather(-1, sequences.input_ids[:, 1:, None]).squeeze(-1)
        place = sequences.rows, sequences.columns - 1
        logprobs, values = every[place], self.value_head(output.hidden_states[-1]).squeeze(-1)[place]
        advantages, old_values, returns = experience.advantages[mask], rollout.values[mask], experience.returns[mask]
        ratio = (logprobs - rollout.logprobs[mask]).exp()
        clipped = ratio.clamp(1 - CLIP_RANGE, 1 + CLIP_RANGE)
        policy = -torch.minimum(ratio * advantages, clipped * advantages).mean()
        near = old_values + (values - old_values).clamp(-CLIP_RANGE, CLIP_RANGE)
        value = 0.5 * torch.maximum((values - returns).square(), (near - returns).square()).mean()
        return policy + config.value_coef * value


def as_transformers_has_it(lm: PreTrainedModel) -> PreTrainedModel:
    """Return a copy without our changes to the model's passes: it uses torch's own attention."""
    peer = copy.deepcopy(lm)
    peer.set_attn_implementation("sdpa")
    return peer
