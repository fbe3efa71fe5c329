"""A reward model as a reward: a sequence classifier with one label."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.data import cells
from rlhf.data.batching import padded
from rlhf.data.conversations.messages import with_continuation
from rlhf.data.encoder import Encoder
from rlhf.data.records import Row
from rlhf.errors import RewardError
from rlhf.functional.token_budget import token_budget_batches
from rlhf.models.passes.anatomy import switch_off_dropout
from rlhf.models.passes.fused import speed_up
from rlhf.models.passes.packing import packs
from rlhf.models.passes.rotary import choose_factors, learnt_length, recall_factors
from rlhf.models.pretrained.loading import context_length, frozen_in, limit_of, load_scalar_lm
from rlhf.models.pretrained.tokenizer import load_tokenizer, tokenizer_fingerprint, with_pad
from rlhf.models.pretrained.vocabulary import fit_vocabulary
from rlhf.models.scalar import ScalarModel
from rlhf.rewards.checks import checked_scores
from rlhf.rewards.protocol import Episode


class Loaded(NamedTuple):
    """A classifier that is already in memory."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    """The classifier's own."""


class ModelReward:
    """Scores prompt and response together, at the last token.

    With the policy's tokenizer, the model reads the policy's tokens; with a different one it reads the text, with its
    own EOS in place of the policy's.
    """

    def __init__(
        self,
        path: str,
        policy_tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: torch.dtype,
        device: torch.device,
        max_tokens: int = 1024,
        loaded: Loaded | None = None,
        longest: int | None = None,
    ) -> None:
        """Load the model, frozen, or take one that is loaded.

        Args:
            path: directory or hub name of a sequence classifier with one label.
            policy_tokenizer: the tokenizer that the token ids of episodes belong to.
            dtype: of the trunk; the head stays float32.
            device: where it runs.
            max_tokens: tokens of one forward pass.
            loaded: a model with its tokenizer, which this reward then owns; `path` only names them.
            longest: the most tokens that an episode may have, None where it is not known. Rotary factors that depend
                on the length are those of such a sequence, unless the model says which it was trained with.

        Raises:
            ConfigError: the model cannot be loaded, or does not have exactly one label.
        """
        if loaded is None:
            classifier, self.tokenizer = load_scalar_lm(path, new_head=False), load_tokenizer(path)
        else:
            classifier = switch_off_dropout(loaded.model)
            self.tokenizer = with_pad(copy.deepcopy(loaded.tokenizer), path, None)
            recall_factors(classifier)
        if longest is not None and learnt_length(classifier) is None:
            choose_factors(classifier, longest)
        speed_up(classifier)
        self.path = path
        fit_vocabulary(classifier, self.tokenizer, path)
        self.model = ScalarModel(frozen_in(classifier, dtype)).to(device)
        self._encoder = Encoder(self.tokenizer, append_eos=True)
        self._policy_eos_id = policy_tokenizer.eos_token_id
        self._shares_tokens = tokenizer_fingerprint(self.tokenizer) == tokenizer_fingerprint(policy_tokenizer)
        self._max_tokens = max_tokens

    @torch.no_grad()
    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score per episode, in order.

        Raises:
            ConfigError: prompts are messages, and the model's own tokenizer has no chat template.
            RewardError: a score is not finite, or a sequence is longer than the model has positions for.
        """
        rows = [self._ids(episode) for episode in episodes]
        limit, longest = context_length(self.model.classifier), max(map(len, rows), default=0)
        if limit is not None and longest > limit:
            raise RewardError(
                f"reward model {self.path}: prompt and response have {longest} tokens, the model "
                f"{limit_of(self.model.classifier)}"
            )
        scores = torch.zeros(len(rows))
        for items in self._cut([len(row) for row in rows]):
            scores[items] = self._scores([rows[item] for item in items])
        return checked_scores(scores, len(rows), f"reward model {self.path}", [episode.prompt for episode in episodes])

    @property
    def models(self) -> list[nn.Module]:
        """The model, which is asked whole."""
        return [self.model]

    def close(self) -> None:
        """Do nothing: nothing needs closing."""

    def _cut(self, lengths: Sequence[int]) -> list[list[int]]:
        return token_budget_batches(lengths, self._max_tokens, packs=packs(self.model.classifier))

    def _scores(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        device, (ids, mask) = self.model.classifier.device, padded(rows, 0)
        return self.model(ids.to(device), mask.to(device)).cpu()  # type: ignore[no-any-return]

    def _ids(self, episode: Episode) -> list[int]:
        if self._shares_tokens:
            return [*episode.prompt_ids, *episode.response_ids]
        if isinstance(episode.prompt, str):
            response = self._encoder.bare(episode.completion)
            ended = episode.response_ids[-1:] == (self._policy_eos_id,)
            return self._encoder.prompt(episode.prompt) + (self._encoder.with_eos(response) if ended else response)
        where = f"reward model {self.path}"
        messages = with_continuation(episode.prompt, [{"role": "assistant", "content": episode.completion}])
        tools = cells.tools(Row(dict(episode.columns), where))
        text = self._encoder.render(messages, where, add_generation_prompt=False, tools=tools)
        return self._encoder.with_eos(self._encoder.bare(text))
