"""The numbers of each token of a few episodes, for a reader who wants to see what a step taught."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf.config import PPOSettings
from rlhf.ppo.step_records import StepResult

MOST_EPISODES = 2
"""Episodes of a step that are traced: those with the highest and the lowest score."""
MOST_TOKENS = 512
"""Tokens of an episode that are written, about 60 bytes each."""


@dataclass(frozen=True, slots=True)
class Tracer:
    """Writes down what the models and the updates computed anyway; no model runs for it."""

    tokenizer: PreTrainedTokenizerBase
    config: PPOSettings

    def traces(self, result: StepResult, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return the traces of the highest and the lowest scored of some episodes, by row.

        Each has lists over the tokens, forced ones first: their `text`; `advantage`, `value` (with a critic), `kl` and
        `token_score`; `surprise`, minus the logprob; `ratio` in the last update that read the token, and 1 in `clipped`
        where the clip stopped its gradient. `forced` is the number of forced tokens; their numbers are 0. A dropped
        episode has none.
        """
        kept = [row for row in rows if bool(result.experience.rollout.response_mask[row].any())]
        totals = result.experience.rollout.episode_scores()
        ordered = sorted(kept, key=lambda row: float(totals[row]))
        return {row: self._trace(result, row) for row in {*ordered[-1:], *ordered[: MOST_EPISODES - 1]}}

    def _trace(self, result: StepResult, row: int) -> dict[str, Any]:
        experience, rollout = result.experience, result.experience.rollout
        mask = rollout.response_mask[row]
        length = min(int((mask | rollout.forced[row]).sum()), MOST_TOKENS)
        ratio, advantage = last_ratio(result, row), experience.advantages[row]
        numbers = {
            "advantage": advantage,
            **({"value": rollout.values[row]} if self.config.has_critic else {}),
            "kl": experience.kl[row],
            "token_score": rollout.token_scores[row],
            "surprise": -rollout.logprobs[row],
            "ratio": ratio,
            "clipped": self._is_clipped(ratio, advantage, mask).float(),
        }
        ids = rollout.response_ids[row, :length].tolist()
        return {
            "text": self.tokenizer.batch_decode([[token] for token in ids]),
            "forced": int(rollout.forced[row].sum()),
            **{name: [_short(number) for number in values[:length].tolist()] for name, values in numbers.items()},
        }

    def _is_clipped(self, ratio: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        span = self.config.clip_range
        if span is None or self.config.objective == "policy_gradient":
            return torch.zeros_like(mask)
        return mask & (((ratio > 1 + span) & (advantage > 0)) | ((ratio < 1 - span) & (advantage < 0)))


def last_ratio(result: StepResult, row: int) -> Tensor:
    """Return [T], the ratio of an episode's tokens in the last update that read it; 0 where it has no token."""
    mask = result.experience.rollout.response_mask
    for update in reversed(result.updates):
        for rows, ratios in update.ratios:
            found = (rows == row).nonzero()
            if len(found):
                part = ratios.split(mask[rows].sum(1).tolist())[int(found[0])]
                return torch.zeros_like(mask[row], dtype=torch.float32).masked_scatter(mask[row], part.float())
    return torch.zeros_like(mask[row], dtype=torch.float32)


def _short(number: float) -> float:
    return float(f"{number:.4g}")
